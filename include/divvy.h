/*
 * divvy: keeps a set of partitions divided among a changing fleet of workers. C ABI.
 *
 * Generated from the library's source by cbindgen. Do not edit.
 *
 * Language. C99 or later, C++11 or later. C++ programs may like divvy.hpp better: the same with
 * destructors, exceptions and std::function.
 *
 * Handles. Every object is a small struct passed by value: divvy_calculator c = {0}. {0} is no
 * object. A handle is looked up in a table and never followed as a pointer: one that was freed,
 * is of another kind or is plain rubbish is answered with BAD_HANDLE, {0} with NULL_ARGUMENT. Copies of a
 * handle are the same object. Functions that free accept {0}. Freeing while another thread
 * is in a call with the same handle is safe: that call ends as if it had come first.
 *
 * Errors. Fallible functions return a divvy_status: 0 is success. What went wrong is written, as
 * one line of text, to errbuf, which has errlen bytes: cut off to fit, always ended by a NUL, only
 * written on failure. errbuf may be NULL; 256 bytes are a good size. Operation, key and attempts, too,
 * can be had of it: divvy_error_operation(), _key(), _attempts(). Outputs are written on success
 * only. Beside what they list, all functions with a handle may return NULL_ARGUMENT (a handle is
 * {0}, or a pointer is NULL that may not be), BAD_HANDLE, FORKED, and PANICKED (a defect of the
 * library that was caught; please report it).
 *
 * Texts. What goes in is UTF-8 ended by a NUL, at most DIVVY_TEXT_MAX bytes, or bytes with their
 * length where the function says so. What comes out is ended by a NUL, and its length can be had.
 *
 * Memory. Whatever has a ..._free() function is freed by that and nothing else, never by free().
 * Everything handed in is copied. userdata belongs to the library from the moment the call that
 * hands it over has succeeded; destroy is then called exactly once. What userdata points to is used
 * from the library's threads.
 *
 * Time. Durations are milliseconds, from 0 to DIVVY_TIMEOUT_MAX_MS.
 *
 * Threads. Any function may be called from any thread, at the same time, callbacks included, except
 * where it says otherwise. The library's threads are named "dv-...", all signals are blocked on
 * them, and it never changes how the process handles signals. No function may be called from a
 * signal handler.
 *
 * Callbacks must return: an exception or a longjmp that leaves one ends the process or worse
 * (divvy.hpp catches exceptions). Where they run and what they must not call stands with each.
 *
 * fork. Use the library on one side of a fork only. In a child of a process that has made any handle
 * every function returns FORKED (or its fallback), nothing waits, nothing is sent; functions that
 * need no handle, such as divvy_version(), work. Fork first and use the library then, or exec.
 *
 * The library never writes to the standard streams (see divvy_log_set()), never ends the process,
 * and cannot be unloaded: dlclose() leaves it in memory.
 *
 * What may change. The shared library's SONAME is libdivvy.so.0.MINOR before 1.0 and
 * libdivvy.so.MAJOR from then on; DIVVY_ABI_VERSION is another number whenever the SONAME is. As
 * long as both stay, no function, constant or type is removed, renamed, renumbered or given other
 * parameters; handles keep their size. What may come at any time: functions, statuses,
 * kinds of events, settings, members of JSON objects. Treat numbers that you do not know as what
 * their documentation says of unknown ones. No struct of this header will ever grow: objects are
 * asked through functions.
 */


#ifndef DIVVY_H
#define DIVVY_H

#include <stddef.h>
#include <stdint.h>

/**
 * Major version of the header.
 */
#define DIVVY_VERSION_MAJOR 0

/**
 * Minor version of the header.
 */
#define DIVVY_VERSION_MINOR 1

/**
 * Patch version of the header.
 */
#define DIVVY_VERSION_PATCH 0

/**
 * Number of the binary interface that the header describes; see "What may change" above.
 */
#define DIVVY_ABI_VERSION 1

/**
 * The longest text that a function takes, in bytes without the NUL, unless it says otherwise.
 */
#define DIVVY_TEXT_MAX 16384

/**
 * The longest JSON or value that a function takes, in bytes.
 */
#define DIVVY_BYTES_MAX 268435456

/**
 * The longest time-out of a call, in milliseconds: a year.
 */
#define DIVVY_TIMEOUT_MAX_MS 31536000000

/**
 * Most keys of one partition.
 */
#define DIVVY_PARTITION_KEYS_MAX 64

/**
 * The owner of a partition that nobody holds, see divvy_plan_input_previous().
 */
#define DIVVY_NO_WORKER UINT32_MAX

/**
 * How a call ended. 0 is success; -1 to -99 is misuse by the caller, -100 to -199 comes from the
 * environment, -200 and below from the library itself. Numbers are never reused; new ones may
 * appear in any release, so treat an unknown one as a failure of its range.
 */
enum divvy_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Done.
     */
    DIVVY_OK = 0,
    /**
     * A pointer or handle that must be given is NULL or {0}.
     */
    DIVVY_NULL_ARGUMENT = -1,
    /**
     * The handle was freed, is of another kind, or was never one.
     */
    DIVVY_BAD_HANDLE = -2,
    /**
     * An argument breaks a rule that its function states.
     */
    DIVVY_INVALID_ARGUMENT = -3,
    /**
     * A text is not UTF-8.
     */
    DIVVY_BAD_UTF8 = -4,
    /**
     * A text, a list or a number of bytes exceeds the stated maximum.
     */
    DIVVY_TOO_LONG = -5,
    /**
     * A setting does not exist, cannot be read or breaks a rule; the detail names each.
     */
    DIVVY_INVALID_CONFIG = -6,
    /**
     * The calculator, manager or store is not started, or was stopped.
     */
    DIVVY_NOT_RUNNING = -7,
    /**
     * The calculator or manager is already started.
     */
    DIVVY_ALREADY_STARTED = -8,
    /**
     * The call would wait for the thread that makes it: a stop from inside a callback.
     */
    DIVVY_WOULD_DEADLOCK = -9,
    /**
     * This process was forked from the one that used the library.
     */
    DIVVY_FORKED = -10,
    /**
     * The header that the program was compiled with does not fit this library.
     */
    DIVVY_ABI_MISMATCH = -11,
    /**
     * No event will come any more. Not a failure.
     */
    DIVVY_CLOSED = -12,
    /**
     * A wait was ended by a wake. Not a failure.
     */
    DIVVY_WOKEN = -13,
    /**
     * There is no value under that key. Not a failure.
     */
    DIVVY_NOT_FOUND = -14,
    /**
     * The caller ended the call before its time, see divvy_cancel.
     */
    DIVVY_CANCELLED = -15,
    /**
     * The deadline passed; the detail says what was still going on.
     */
    DIVVY_TIMED_OUT = -100,
    /**
     * The store cannot be reached or does not answer.
     */
    DIVVY_UNAVAILABLE = -101,
    /**
     * The store refuses the credentials, or a permission is missing.
     */
    DIVVY_UNAUTHORIZED = -102,
    /**
     * The store, the bucket, the platform or this build cannot do what is asked.
     */
    DIVVY_UNSUPPORTED = -103,
    /**
     * A newer leader has taken over: nothing of this term is accepted any more.
     */
    DIVVY_FENCED = -104,
    /**
     * Somebody else wrote or took over at the same moment.
     */
    DIVVY_CONFLICT = -105,
    /**
     * There is no live worker.
     */
    DIVVY_NO_WORKERS = -106,
    /**
     * A stored value is malformed, oversized or of a wrong type.
     */
    DIVVY_INVALID_DATA = -107,
    /**
     * A value is larger than the store takes.
     */
    DIVVY_TOO_LARGE = -108,
    /**
     * Anything else that the store reported.
     */
    DIVVY_STORE_ERROR = -109,
    /**
     * The host's partition source failed or told an unusable list.
     */
    DIVVY_SOURCE_FAILED = -110,
    /**
     * The host's strategy failed.
     */
    DIVVY_STRATEGY_FAILED = -111,
    /**
     * The strategy made a plan that cannot be used.
     */
    DIVVY_INVALID_PLAN = -112,
    /**
     * Every stable id of the configured range is taken.
     */
    DIVVY_IDS_EXHAUSTED = -113,
    /**
     * Somebody else holds this worker's id.
     */
    DIVVY_ID_LOST = -114,
    /**
     * This worker does not lead: the call is the leader's.
     */
    DIVVY_NOT_LEADER = -115,
    /**
     * A panic was caught: a defect of the library. Please report it with the detail.
     */
    DIVVY_PANICKED = -200,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum divvy_status divvy_status;
#else
typedef int32_t divvy_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The buckets of a fleet.
 */
enum divvy_bucket
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Claims of stable ids.
     */
    DIVVY_BUCKET_STABLE_ID = 1,
    /**
     * The leader's lease.
     */
    DIVVY_BUCKET_ELECTION = 2,
    /**
     * Signs of life of every worker; entries expire.
     */
    DIVVY_BUCKET_HEARTBEAT = 3,
    /**
     * Assignments, the fence record and the commit record; nothing expires.
     */
    DIVVY_BUCKET_ASSIGNMENT = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum divvy_bucket divvy_bucket;
#else
typedef int32_t divvy_bucket;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What an event is about. New kinds may appear in any release: ignore those you do not know.
 */
enum divvy_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The state changed: divvy_event_state(), _from_state(), _reason(), _version(), _time_ns().
     * The first event of every subscriber tells the current state; both states are equal then.
     */
    DIVVY_EVENT_CALCULATOR_STATE = 1,
    /**
     * The fleet changed: divvy_event_member_change(), _worker().
     */
    DIVVY_EVENT_MEMBER = 2,
    /**
     * A plan was published: divvy_event_version(), _reason(), _worker_count(),
     * _partition_count(), _moved_count().
     */
    DIVVY_EVENT_PUBLISHED = 3,
    /**
     * A job failed; it stays pending and is retried: divvy_event_status(), _message(),
     * _operation(), _key(), _attempts().
     */
    DIVVY_EVENT_FAILED = 4,
    /**
     * What keeps the calculator from doing its whole work changed: divvy_event_message(), which
     * says what works nevertheless and is empty when nothing is wrong any more, and
     * divvy_event_time_ns(), since when.
     */
    DIVVY_EVENT_DEGRADED = 5,
    /**
     * A newer leader has taken over, or the fence record is gone (its bucket was purged or created
     * anew): nothing more is published by this calculator.
     */
    DIVVY_EVENT_LEADERSHIP_LOST = 6,
    /**
     * The subscriber was too slow and is closed; its last event: divvy_event_missed_count().
     */
    DIVVY_EVENT_LAGGED = 7,
    /**
     * A thread of the calculator panicked and it has failed; the last event:
     * divvy_event_message().
     */
    DIVVY_EVENT_FATAL = 8,
    /**
     * A shadow (setting "shadow") would have published a plan: as DIVVY_EVENT_PUBLISHED.
     */
    DIVVY_EVENT_WOULD_PUBLISH = 9,
    /**
     * The live leader that a shadow watches published a plan: divvy_event_version(),
     * _worker_count(), _partition_count(), _moved_count(), all of the leader's plan;
     * divvy_event_message() says how the shadow's differs.
     */
    DIVVY_EVENT_LEADER_PUBLISHED = 10,
    /**
     * The store's circuit breaker opened (nothing is published, calls fail at once), lets one call
     * through to see (half-open, told with the same reason), or closed again:
     * divvy_event_message() says why it is not closed and is empty when it is. The status of the
     * calculator or manager tells open from half-open. A manager tells it whether it leads or not.
     */
    DIVVY_EVENT_BREAKER = 11,
    /**
     * A live worker has not applied what is assigned to it within the setting apply_timeout; told
     * once until it has caught up: divvy_event_worker(), _version() (assigned),
     * _applied_version(), and _message(), which says it in words.
     */
    DIVVY_EVENT_WORKER_LAGGING = 12,
    /**
     * The manager's state changed: divvy_event_state(), _from_state(), _time_ns(). The first
     * event of a subscriber to a worker tells the current state; both states are equal then.
     */
    DIVVY_EVENT_MANAGER_STATE = 20,
    /**
     * The worker is a member under another id from now on: divvy_event_worker(), empty when it
     * has none any more.
     */
    DIVVY_EVENT_WORKER_ID = 21,
    /**
     * Somebody else holds the id, nothing is owned any more, and another id is claimed:
     * divvy_event_worker().
     */
    DIVVY_EVENT_WORKER_ID_LOST = 22,
    /**
     * The id's key was gone, nobody had taken it, and it is claimed again: divvy_event_worker().
     */
    DIVVY_EVENT_WORKER_ID_REGAINED = 23,
    /**
     * What the worker holds changed, or a new version of the same was applied:
     * divvy_event_assignment(), divvy_event_version().
     */
    DIVVY_EVENT_ASSIGNMENT = 24,
    /**
     * Another leader is known: divvy_event_worker(), empty for none, divvy_event_is_leader().
     */
    DIVVY_EVENT_LEADER = 25,
    /**
     * The store is out of reach, and what is held may be out of date: divvy_event_message().
     */
    DIVVY_EVENT_OUTAGE = 26,
    /**
     * That has lasted long enough to alarm somebody: divvy_event_alert_level(), _lasted_ms().
     */
    DIVVY_EVENT_ALERT = 27,
    /**
     * That is over: divvy_event_lasted_ms().
     */
    DIVVY_EVENT_RECOVERED = 28,
    /**
     * Something of the manager's failed and is tried again, told once until it succeeds:
     * divvy_event_status(), _message(), _operation(), _key(), _attempts().
     */
    DIVVY_EVENT_MANAGER_FAILED = 29,
    /**
     * The calculator of this worker panicked; it leads no more: divvy_event_message().
     */
    DIVVY_EVENT_CALCULATOR_FATAL = 30,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum divvy_event_kind divvy_event_kind;
#else
typedef int32_t divvy_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a calculator is doing.
 */
enum divvy_calculator_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Nothing is pending, or what is pending waits for cooldown or a retry.
     */
    DIVVY_CALCULATOR_IDLE = 1,
    /**
     * A stabilisation window is open.
     */
    DIVVY_CALCULATOR_SCALING = 2,
    /**
     * A plan is being computed and published.
     */
    DIVVY_CALCULATOR_REBALANCING = 3,
    /**
     * A plan without confirmed lost workers is being computed and published.
     */
    DIVVY_CALCULATOR_EMERGENCY = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum divvy_calculator_state divvy_calculator_state;
#else
typedef int32_t divvy_calculator_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why a plan is made.
 */
enum divvy_reason
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * No plan is being made.
     */
    DIVVY_REASON_NONE = 0,
    /**
     * The window after starting from no workers.
     */
    DIVVY_REASON_COLD_START = 1,
    /**
     * Published at once at a start to close a coverage gap.
     */
    DIVVY_REASON_COLD_START_IMMEDIATE = 2,
    /**
     * Published at the end of the window that follows an immediate cold start.
     */
    DIVVY_REASON_COLD_START_FINAL = 3,
    /**
     * Workers joined or left in an orderly way.
     */
    DIVVY_REASON_PLANNED_SCALE = 4,
    /**
     * A large part of the fleet went missing and (some of it) came back.
     */
    DIVVY_REASON_RESTART = 5,
    /**
     * Workers were confirmed lost.
     */
    DIVVY_REASON_EMERGENCY = 6,
    /**
     * Asked for with divvy_calculator_trigger_rebalance().
     */
    DIVVY_REASON_MANUAL_REFRESH = 7,
    /**
     * The partition list or its weights changed.
     */
    DIVVY_REASON_PARTITION_CHANGE = 8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum divvy_reason divvy_reason;
#else
typedef int32_t divvy_reason;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How the fleet changed.
 */
enum divvy_member_change
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The event is about something else.
     */
    DIVVY_MEMBER_NONE = 0,
    /**
     * Beats for the first time.
     */
    DIVVY_MEMBER_JOINED = 1,
    /**
     * Took its leave.
     */
    DIVVY_MEMBER_LEFT = 2,
    /**
     * Its lease ran out.
     */
    DIVVY_MEMBER_SUSPECTED = 3,
    /**
     * Was missing and beats again.
     */
    DIVVY_MEMBER_RETURNED = 4,
    /**
     * Was missing for too long.
     */
    DIVVY_MEMBER_DEAD = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum divvy_member_change divvy_member_change;
#else
typedef int32_t divvy_member_change;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which events of a calculator a subscriber wants.
 */
enum divvy_event_filter
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * CalculatorState changes, publications, failures, degradations.
     */
    DIVVY_FILTER_STATE = 1,
    /**
     * Those, and every worker that joined, left, went missing, came back or was lost.
     */
    DIVVY_FILTER_STATE_AND_MEMBERS = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum divvy_event_filter divvy_event_filter;
#else
typedef int32_t divvy_event_filter;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How much is logged.
 */
enum divvy_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Nothing.
     */
    DIVVY_LOG_OFF = 0,
    /**
     * What went wrong and needs somebody's attention.
     */
    DIVVY_LOG_ERROR = 1,
    /**
     * What is odd.
     */
    DIVVY_LOG_WARN = 2,
    /**
     * What happens, a few lines for each rebalance.
     */
    DIVVY_LOG_INFO = 3,
    /**
     * How it happens.
     */
    DIVVY_LOG_DEBUG = 4,
    /**
     * Everything.
     */
    DIVVY_LOG_TRACE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum divvy_log_level divvy_log_level;
#else
typedef int32_t divvy_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a manager is doing.
 */
enum divvy_manager_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Not started, or seeing to the buckets.
     */
    DIVVY_MANAGER_INIT = 1,
    /**
     * Claiming a stable id.
     */
    DIVVY_MANAGER_CLAIMING_ID = 2,
    /**
     * A member, and nobody is known to lead.
     */
    DIVVY_MANAGER_ELECTION = 3,
    /**
     * Somebody leads; nothing was assigned to this worker yet.
     */
    DIVVY_MANAGER_WAITING_ASSIGNMENT = 4,
    /**
     * What is assigned is applied.
     */
    DIVVY_MANAGER_STABLE = 5,
    /**
     * This worker leads, and waits for more workers to come or go.
     */
    DIVVY_MANAGER_SCALING = 6,
    /**
     * This worker leads, and computes and publishes a plan.
     */
    DIVVY_MANAGER_REBALANCING = 7,
    /**
     * This worker leads, and publishes a plan without workers that are lost.
     */
    DIVVY_MANAGER_EMERGENCY = 8,
    /**
     * The store is out of reach: what is held may be out of date, or ownership is suspended.
     */
    DIVVY_MANAGER_DEGRADED = 9,
    /**
     * Leaving, or gone.
     */
    DIVVY_MANAGER_SHUTDOWN = 10,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum divvy_manager_state divvy_manager_state;
#else
typedef int32_t divvy_manager_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which events of a manager a subscriber wants. Those that are the last ones, LAGGED and FATAL,
 * come to all.
 */
enum divvy_manager_event_filter
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * What is assigned to this worker, and nothing else.
     */
    DIVVY_MANAGER_FILTER_ASSIGNMENT = 1,
    /**
     * All about this worker: its state, id, assignment, outages, failures, and who leads.
     */
    DIVVY_MANAGER_FILTER_WORKER = 2,
    /**
     * That, and the events of its calculator while it leads.
     */
    DIVVY_MANAGER_FILTER_WORKER_AND_CALCULATOR = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum divvy_manager_event_filter divvy_manager_event_filter;
#else
typedef int32_t divvy_manager_event_filter;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How a worker goes.
 */
enum divvy_departure
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * For good: its partitions go to others at once.
     */
    DIVVY_DEPARTURE_LEAVE = 1,
    /**
     * To be back soon: whoever claims its id within heartbeat_ttl and emergency_grace_period finds
     * its partitions where they were.
     */
    DIVVY_DEPARTURE_RESTART = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum divvy_departure divvy_departure;
#else
typedef int32_t divvy_departure;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How alarming it is that degraded mode lasts.
 */
enum divvy_alert_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The event is about something else.
     */
    DIVVY_ALERT_NONE = 0,
    /**
     * After 30 s.
     */
    DIVVY_ALERT_INFO = 1,
    /**
     * After 2 min.
     */
    DIVVY_ALERT_WARNING = 2,
    /**
     * After 5 min.
     */
    DIVVY_ALERT_ERROR = 3,
    /**
     * After 10 min.
     */
    DIVVY_ALERT_CRITICAL = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum divvy_alert_level divvy_alert_level;
#else
typedef int32_t divvy_alert_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which of an assignment's lists of partitions.
 */
enum divvy_assignment_list
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Everything that is held.
     */
    DIVVY_LIST_OWNED = 1,
    /**
     * What was not held before; empty but for events.
     */
    DIVVY_LIST_ADDED = 2,
    /**
     * What is held no more; empty but for events.
     */
    DIVVY_LIST_REMOVED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum divvy_assignment_list divvy_assignment_list;
#else
typedef int32_t divvy_assignment_list;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A text made by the library, freed with divvy_text_free().
 */
typedef struct divvy_text {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_text;

/**
 * Ends calls that wait before their time-out: for a caller who learns only while it waits that
 * nobody wants the answer any more. One serves any number of calls and threads, until it is fired.
 *
 * Ended with CANCELLED are start, stop, free, trigger_rebalance, refresh, refresh_partitions and
 * wait_state of calculators and managers, divvy_store_nats_connect(), and stop, ensure, put, delete
 * and get of stores; what else waits has a time-out or a wake of its own.
 */
typedef struct divvy_cancel {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_cancel;

/**
 * Called with every record of the log.
 *
 * Parameters: userdata - as given with the callback. level - DIVVY_LOG_ERROR to DIVVY_LOG_TRACE.
 * target - the part of the library, such as "divvy::calculator". message, message_length - the
 * text, NUL-terminated, and its bytes; both texts are borrowed until the callback returns.
 * Thread: "dv-log", one call at a time, in order, with no lock held. A slow callback loses
 * records, it delays nothing. Must not call divvy_log_set(), must not throw or longjmp.
 */
typedef void (*divvy_log_fn)(void *userdata,
                             int32_t level,
                             const char *target,
                             const char *message,
                             size_t message_length);

/**
 * Frees the userdata of a callback. Called exactly once, when the library no longer uses it: see
 * the function that took it. NULL where nothing is to be freed.
 *
 * Thread: any of the library's, or the one that ends the use. Must not call into the library.
 */
typedef void (*divvy_destroy_fn)(void *userdata);

/**
 * Settings by name. The names, with defaults, are what divvy_config_dump() tells; each is
 * described in the manual of the Rust crate. Values are text: durations such as "1m30s",
 * "250ms" or "0", numbers, "true" and "false", lists separated by commas.
 */
typedef struct divvy_config {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_config;

/**
 * A list of partitions that the host builds. Each partition has one or more keys that name it,
 * unique in the list, and a weight.
 */
typedef struct divvy_partitions {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_partitions;

/**
 * Tells the library all partitions: called with an empty list to be filled with
 * divvy_partitions_add() or divvy_partitions_add_json().
 *
 * Parameters: userdata - as given with the callback. partitions - the list, valid until the
 * callback returns; must not be freed. timeout_ms - how long the calculator is willing to wait;
 * a longer call delays the rebalance.
 * Returns: DIVVY_OK (0); anything else is a failure: the last plan stays and the call is retried.
 * Thread: "dv-publish", one call at a time for each calculator. May take time. Must not call
 * divvy_calculator_stop(), _free(), _trigger_rebalance() or _refresh() of the same calculator
 * (they return WOULD_DEADLOCK), must not throw or longjmp.
 */
typedef int32_t (*divvy_source_fn)(void *userdata,
                                   struct divvy_partitions partitions,
                                   int64_t timeout_ms);

/**
 * What a plan is to be made from: workers, sorted bytewise and at least one; partitions, sorted
 * key by key; and who holds each partition now. Valid until the strategy's callback returns.
 */
typedef struct divvy_plan_input {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_plan_input;

/**
 * Divides the partitions: writes the index of a worker for each partition. The same input must
 * always lead to the same plan.
 *
 * Parameters: userdata - as given with the callback. input - workers and partitions. owners - one
 * element for each partition, all preset to DIVVY_NO_WORKER; each must be set to the index of a
 * worker. owner_count - their number.
 * Returns: DIVVY_OK (0); anything else is a failure: the last plan stays and the call is retried,
 * as it is when an owner is missing or does not exist.
 * Thread: "dv-publish", one call at a time for each calculator. May take time. Must not call
 * divvy_calculator_stop(), _free(), _trigger_rebalance() or _refresh() of the same calculator
 * (they return WOULD_DEADLOCK), must not throw or longjmp.
 */
typedef int32_t (*divvy_strategy_fn)(void *userdata,
                                     struct divvy_plan_input input,
                                     uint32_t *owners,
                                     size_t owner_count);

/**
 * Takes the leadership for a worker, or prolongs it. Called again and again while the worker is a
 * member: three times within what was granted last, or within the setting election_timeout.
 *
 * Parameters: userdata - as given with the callback. worker - the worker's id, valid until the
 * callback returns. timeout_ms - by when it should return. lease_ms - where it goes for how many
 * milliseconds from the call on this worker leads; preset to 0, which means that another one does.
 * Returns: DIVVY_OK (0); anything else means that it is not known: a leader leads on until what it
 * was granted last is nearly over.
 * Thread: "dv-io" of the manager; calls of several threads may overlap. May take time. Must not
 * call divvy_manager_stop() or _free() of the same manager (they return WOULD_DEADLOCK), must not
 * throw or longjmp.
 */
typedef int32_t (*divvy_campaign_fn)(void *userdata,
                                     const char *worker,
                                     int64_t timeout_ms,
                                     int64_t *lease_ms);

/**
 * Gives the leadership of a worker back.
 *
 * Parameters: userdata, worker, timeout_ms - as divvy_campaign_fn.
 * Returns: DIVVY_OK (0); anything else is logged, and it is not asked again.
 * Thread: as divvy_campaign_fn.
 */
typedef int32_t (*divvy_resign_fn)(void *userdata, const char *worker, int64_t timeout_ms);

/**
 * A key-value store that a fleet shares. It lives until it is freed and every calculator made
 * with it is.
 */
typedef struct divvy_store {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_store;

/**
 * A calculator: watches the workers of a fleet, decides when their partitions are to be divided
 * anew, and publishes the plan. For hosts that have their own election: start it where the host
 * leads, stop it where it no longer does.
 *
 * All functions may be called from any thread, at the same time, unless they say otherwise.
 * A started calculator has four threads: "dv-calc", "dv-watch", "dv-publish" and "dv-notify".
 * Callbacks of subscribers run on "dv-notify", one at a time, with no lock held.
 */
typedef struct divvy_calculator {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_calculator;

/**
 * An event. Those of divvy_events_poll() are the caller's and freed with divvy_event_free();
 * those handed to a callback are valid until it returns.
 */
typedef struct divvy_event {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_event;

/**
 * Called with every event.
 *
 * Parameters: userdata - as given with the callback. event - valid until the callback returns;
 * must not be freed.
 * Thread: "dv-notify" of the calculator or manager, one call at a time for all its subscribers, in
 * order, with no lock held. A slow callback delays other callbacks of the same one, nothing else;
 * one that falls subscriber_backlog events behind gets a last event of kind DIVVY_EVENT_LAGGED.
 * Every function of the library may be called, except that stop and free of the same calculator
 * or manager return WOULD_DEADLOCK. Must not throw or longjmp; an exception that gets out
 * ends the process.
 */
typedef void (*divvy_event_fn)(void *userdata, struct divvy_event event);

/**
 * A subscription with a callback.
 */
typedef struct divvy_subscription {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_subscription;

/**
 * A queue of events.
 */
typedef struct divvy_events {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_events;

/**
 * A manager: one worker's whole life. It joins the fleet under a stable id, sends heartbeats,
 * takes part in the election, is told what to work on, runs a calculator while it leads, and
 * leaves well.
 *
 * All functions may be called from any thread, at the same time, unless they say otherwise.
 * A started manager has the threads "dv-member", "dv-notify" and "dv-io" (more of the latter while
 * the store answers slowly), and while it leads "dv-calc", "dv-watch" and "dv-publish". Callbacks of
 * subscribers run on "dv-notify", one at a time, with no lock held. Heartbeats depend on no callback
 * and on no poll.
 */
typedef struct divvy_manager {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_manager;

/**
 * What one worker holds at one moment: a snapshot that never changes. It has three lists of
 * partitions: what is held, and, where it came with an event, what was added and what was
 * removed by that change.
 */
typedef struct divvy_assignment {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_assignment;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Tells the name of a status, such as "DIVVY_TIMED_OUT".
 *
 * Parameters: status - any number.
 * Returns: the name; "unknown" for a number that this library does not know. Never NULL.
 * Ownership: static, never freed.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
const char *divvy_status_name(int32_t status);

/**
 * Tells whether the same call may succeed later without anybody changing anything.
 *
 * Parameters: status - any number.
 * Returns: 1 if so, else 0; 0 for a number that this library does not know.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
int32_t divvy_status_is_retriable(int32_t status);

/**
 * Walks through every status that this library knows, for generators of bindings.
 *
 * Parameters: index - from 0 on.
 * Returns: the status, 1 (which is no status) behind the last one.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
int32_t divvy_status_at(size_t index);

/**
 * Tells the version of the library that is loaded, such as "0.1.0".
 *
 * Returns: the version. Never NULL.
 * Ownership: static, never freed.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
const char *divvy_version(void);

/**
 * Tells the version of the library that is loaded as major * 1000000 + minor * 1000 + patch.
 *
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
uint32_t divvy_version_number(void);

/**
 * Tells whether this library fits the header that the program was compiled with. Write
 * divvy_check_abi(DIVVY_ABI_VERSION) at the start of the program.
 *
 * Parameters: header_version - DIVVY_ABI_VERSION.
 * Returns: OK; ABI_MISMATCH.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
divvy_status divvy_check_abi(uint32_t header_version);

/**
 * Tells what a text says.
 *
 * Parameters: text - the text. length - where its length in bytes goes, NULL if not wanted.
 * Returns: the bytes, followed by a NUL; an empty text for an invalid handle. Never NULL.
 * Ownership: borrowed until divvy_text_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_text_data(struct divvy_text text, size_t *length);

/**
 * Frees a text.
 *
 * Parameters: text - the text; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also the second time.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_text_free(struct divvy_text text);

/**
 * Tells which operation failed, such as "start", or the part of it that went wrong, such as
 * "read".
 *
 * Parameters: errbuf, errlen - as they were given to the call that failed, and untouched since;
 * NULL allowed. length - where the length in bytes goes, NULL if not wanted.
 * Returns: the operation; an empty text when the call never came to one (an argument was wrong), or
 * errbuf had no room for it: of 256 bytes, half are kept free for operation, key and attempts.
 * Never NULL.
 * Ownership: borrowed, a part of errbuf.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_error_operation(const char *errbuf, size_t errlen, size_t *length);

/**
 * Tells which key of the store it was about, such as "divvy.fence".
 *
 * Parameters, Returns, Ownership, Thread, Since: as divvy_error_operation(); empty, too, when it was
 * about none.
 */
const char *divvy_error_key(const char *errbuf,
                            size_t errlen,
                            size_t *length);

/**
 * Tells how often it was tried in vain, this time included.
 *
 * Parameters: as divvy_error_operation().
 * Returns: the number, 1 where nothing was tried again; 0 where divvy_error_operation() has nothing
 * to tell either.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
uint32_t divvy_error_attempts(const char *errbuf, size_t errlen);

/**
 * Makes one that was not fired.
 *
 * Parameters: out - where the handle goes, not NULL. errbuf, errlen - see "Errors" above.
 * Returns: OK.
 * Ownership: the caller's, freed with divvy_cancel_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_cancel_new(struct divvy_cancel *out, char *errbuf, size_t errlen);

/**
 * Says what ends the calls that this thread makes from now on; those of other threads it does not
 * concern. Inside a callback of the library it holds on the callback's thread: take it back before
 * the callback returns.
 *
 * Parameters: cancel - what ends them, which may be fired already; {0}: nothing any more. errbuf,
 * errlen - see "Errors" above.
 * Returns: OK.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_cancel_use(struct divvy_cancel cancel, char *errbuf, size_t errlen);

/**
 * Ends every call that waits now on a thread that uses it, and those that would wait later. A
 * second call does nothing.
 *
 * Parameters: cancel - what to fire. errbuf, errlen - see "Errors" above.
 * Returns: OK.
 * Thread: any. Does not block. Not from a signal handler.
 * Since: 0.1.
 */
divvy_status divvy_cancel_fire(struct divvy_cancel cancel, char *errbuf, size_t errlen);

/**
 * Frees one. One that was not fired ends nothing any more; threads that use it go on as if it were
 * never fired.
 *
 * Parameters: cancel - what to free; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also the second time.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_cancel_free(struct divvy_cancel cancel);

/**
 * Sets where the log goes, for the whole process. Until the first call, and with callback NULL,
 * nothing is logged; the library never writes to the standard streams. A second call replaces
 * callback and level.
 *
 * Parameters: max_level - a divvy_log_level; records beyond it are not made. callback - see
 * divvy_log_fn; NULL: none. userdata - handed to it. destroy - frees userdata when the callback
 * was replaced and no longer runs; NULL allowed. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT - no such level; WOULD_DEADLOCK - called from the callback;
 * UNSUPPORTED - a Rust program around this library has a logger of its own; TIMED_OUT - the
 * former callback has not returned for 10 s: it gets no further record, and nothing is logged
 * until another call. On a failure userdata stays the caller's and destroy is not called.
 * Thread: any. Blocks while the former callback runs, up to 10 s. Records that wait when the
 * callback is replaced still reach it.
 * Since: 0.1.
 */
divvy_status divvy_log_set(int32_t max_level,
                           divvy_log_fn callback,
                           void *userdata,
                           divvy_destroy_fn destroy,
                           char *errbuf,
                           size_t errlen);

/**
 * Makes a configuration with every setting at its default.
 *
 * Parameters: out - where the handle goes, not NULL. errbuf, errlen - see "Errors" above.
 * Returns: OK.
 * Ownership: the caller's, freed with divvy_config_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_config_new(struct divvy_config *out, char *errbuf, size_t errlen);

/**
 * Frees a configuration. Calculators, managers and stores made from it keep what they need.
 *
 * Parameters: config - the configuration; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also the second time.
 * Thread: any. Does not block; may run the destroy functions of callbacks set on it.
 * Since: 0.1.
 */
divvy_status divvy_config_free(struct divvy_config config);

/**
 * Sets one setting. A second call replaces the value.
 *
 * Parameters: config - the configuration. key - its name, not NULL. value - its value as text,
 * not NULL. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_CONFIG - there is no such setting (the detail tells the nearest one) or
 * the value cannot be read: nothing is changed; BAD_UTF8; TOO_LONG.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_config_set(struct divvy_config config,
                              const char *key,
                              const char *value,
                              char *errbuf,
                              size_t errlen);

/**
 * Sets every member of a JSON object: {"cooldown": "5s", "restart_ratio": 0.4}. Values may be
 * texts, numbers, booleans or lists of texts; null stands for the default.
 *
 * Parameters: config - the configuration. json, length - the text, not NULL unless length is 0,
 * and its bytes, at most DIVVY_BYTES_MAX; no NUL is needed. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_CONFIG - no JSON object, or as divvy_config_set(): nothing is changed;
 * BAD_UTF8; TOO_LONG.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_config_merge_json(struct divvy_config config,
                                     const char *json,
                                     size_t length,
                                     char *errbuf,
                                     size_t errlen);

/**
 * Sets what the environment names: PREFIX and the setting's name in upper case, such as
 * DIVVY_COOLDOWN=5s. An empty variable counts as not set.
 *
 * Parameters: config - the configuration. prefix - what the variables begin with, not empty;
 * NULL: "DIVVY_". errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_CONFIG - a variable with the prefix names no setting (the detail tells
 * the nearest one) or has a value that cannot be read: nothing is changed; INVALID_ARGUMENT -
 * the prefix is empty; BAD_UTF8; TOO_LONG.
 * Thread: any, while no other one changes the environment. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_config_merge_env(struct divvy_config config,
                                    const char *prefix,
                                    char *errbuf,
                                    size_t errlen);

/**
 * Tells every setting with its effective value and where that came from, as JSON:
 * {"cooldown": {"value": "10s", "origin": "default"}, ...}. Secrets are masked.
 *
 * Parameters: config - the configuration; {0}: the defaults. out - where the text goes, not
 * NULL. errbuf, errlen - see "Errors" above.
 * Returns: OK.
 * Ownership: the text is the caller's, freed with divvy_text_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_config_dump(struct divvy_config config,
                               struct divvy_text *out,
                               char *errbuf,
                               size_t errlen);

/**
 * Has calculators, and managers that lead, read their partitions from a callback of the host: at
 * the start, at every rebalance, and at divvy_calculator_refresh() or
 * divvy_manager_refresh_partitions(). Without one, they are pushed with
 * divvy_calculator_set_partitions() or divvy_manager_set_partitions(). A second call replaces the
 * callback.
 *
 * Parameters: config - the configuration. source - see divvy_source_fn; NULL: none any more.
 * userdata - handed to it. destroy - frees userdata when the configuration and all that was
 * made from it are freed; NULL allowed. errbuf, errlen - see "Errors" above.
 * Returns: OK. On a failure userdata stays the caller's and destroy is not called.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_config_set_source(struct divvy_config config,
                                     divvy_source_fn source,
                                     void *userdata,
                                     divvy_destroy_fn destroy,
                                     char *errbuf,
                                     size_t errlen);

/**
 * Has calculators, and managers that lead, divide partitions by a callback of the host instead of the strategy that the
 * setting "strategy" names. A second call replaces the callback.
 *
 * Parameters: config - the configuration. name - for logs and status, not NULL. strategy - see
 * divvy_strategy_fn; NULL: none any more. userdata - handed to it. destroy - frees userdata when
 * the configuration and all that was made from it are freed; NULL allowed. errbuf, errlen -
 * see "Errors" above.
 * Returns: OK; BAD_UTF8; TOO_LONG. On a failure userdata stays the caller's and destroy is not
 * called.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_config_set_strategy(struct divvy_config config,
                                       const char *name,
                                       divvy_strategy_fn strategy,
                                       void *userdata,
                                       divvy_destroy_fn destroy,
                                       char *errbuf,
                                       size_t errlen);

/**
 * Has managers ask an election of the host's who leads, instead of the lease in the store. A
 * second call replaces the callbacks.
 *
 * Parameters: config - the configuration. campaign - see divvy_campaign_fn; NULL: no election of
 * the host's any more. resign - see divvy_resign_fn; NULL: nothing has to be given back. userdata -
 * handed to both. destroy - frees userdata when the configuration and all that was made from it
 * are freed; NULL allowed. errbuf, errlen - see "Errors" above.
 * Returns: OK. On a failure userdata stays the caller's and destroy is not called.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_config_set_election(struct divvy_config config,
                                       divvy_campaign_fn campaign,
                                       divvy_resign_fn resign,
                                       void *userdata,
                                       divvy_destroy_fn destroy,
                                       char *errbuf,
                                       size_t errlen);

/**
 * Makes a store in memory: for trying, for tests, for fleets that live in one process.
 *
 * Parameters: out - where the handle goes, not NULL. errbuf, errlen - see "Errors" above.
 * Returns: OK.
 * Ownership: the caller's, freed with divvy_store_free().
 * Thread: any. Does not block. The store has one thread, "dv-memory", once it is watched.
 * Since: 0.1.
 */
divvy_status divvy_store_memory_new(struct divvy_store *out, char *errbuf, size_t errlen);

/**
 * Connects to NATS and keeps connected until the store is stopped or freed. Reads the settings
 * nats_* and *_bucket. Where cache_file is set it waits for half a second at most, returns OK
 * also when no server could be reached, and goes on connecting.
 *
 * Parameters: config - the configuration; {0}: the defaults. timeout_ms - how long to try, 0 to
 * DIVVY_TIMEOUT_MAX_MS. out - where the handle goes, not NULL. errbuf, errlen - see "Errors"
 * above.
 * Returns: OK; INVALID_ARGUMENT; INVALID_CONFIG - every broken rule is in the detail;
 * UNAUTHORIZED; UNSUPPORTED - a server without headers or TLS, or a library built without NATS;
 * UNAVAILABLE or TIMED_OUT - no server could be reached in time; CANCELLED. After a failure nothing
 * is left behind.
 * Ownership: the caller's, freed with divvy_store_free().
 * Thread: any. Blocks for up to timeout_ms. The store has threads "dv-nats*".
 * Since: 0.1.
 */
divvy_status divvy_store_nats_connect(struct divvy_config config,
                                      int64_t timeout_ms,
                                      struct divvy_store *out,
                                      char *errbuf,
                                      size_t errlen);

/**
 * Ends a store's threads and connections, under running calculators as well: they then fail to
 * reach it. A second call returns OK at once.
 *
 * Parameters: store - the store. timeout_ms - the longest wait, 0 to DIVVY_TIMEOUT_MAX_MS.
 * errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT; TIMED_OUT - the detail says what is still busy; the handle
 * stays valid, call again.
 * Thread: any. Blocks for up to timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_store_stop(struct divvy_store store,
                              int64_t timeout_ms,
                              char *errbuf,
                              size_t errlen);

/**
 * Frees a store. Calculators made with it keep it alive; the last of them stops it.
 *
 * Parameters: store - the store; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also the second time.
 * Thread: any. Blocks for a few seconds at most, when this ends a store that does not answer.
 * Since: 0.1.
 */
divvy_status divvy_store_free(struct divvy_store store);

/**
 * Sees to it that a bucket exists. One that exists is used as it is. A calculator does this for
 * the buckets that it needs.
 *
 * Parameters: store - the store. bucket - a divvy_bucket. ttl_ms - how long a value of a bucket
 * that is made here lives after its write, in milliseconds; 0: for ever. timeout_ms - the longest
 * wait, 0 to DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT; NOT_RUNNING; TIMED_OUT; CANCELLED; UNAVAILABLE; UNAUTHORIZED;
 * UNSUPPORTED.
 * Thread: any. Blocks for up to timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_store_ensure(struct divvy_store store,
                                int32_t bucket,
                                int64_t ttl_ms,
                                int64_t timeout_ms,
                                char *errbuf,
                                size_t errlen);

/**
 * Writes a value, whatever was there. What workers do: a heartbeat is any value under
 * "heartbeat.<worker>" in the heartbeat bucket, written anew before it expires.
 *
 * Parameters: store - the store. bucket - a divvy_bucket. key - letters, digits and - / _ = in
 * parts joined by dots, at most 512 bytes, not NULL. value, length - the bytes, NULL if length is
 * 0; at most DIVVY_BYTES_MAX, and what the store takes. timeout_ms - the longest wait, 0 to
 * DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT; BAD_UTF8; TOO_LONG; NOT_RUNNING; TIMED_OUT - it may have been
 * written; CANCELLED - the message says whether it may have been written, or nothing was;
 * UNAVAILABLE; UNAUTHORIZED; TOO_LARGE; STORE_ERROR.
 * Thread: any. Blocks for up to timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_store_put(struct divvy_store store,
                             int32_t bucket,
                             const char *key,
                             const char *value,
                             size_t length,
                             int64_t timeout_ms,
                             char *errbuf,
                             size_t errlen);

/**
 * Deletes a value. What a worker does that leaves for good: it deletes its heartbeat.
 *
 * Parameters: as divvy_store_put().
 * Returns: OK, also when there was none; otherwise as divvy_store_put().
 * Thread: any. Blocks for up to timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_store_delete(struct divvy_store store,
                                int32_t bucket,
                                const char *key,
                                int64_t timeout_ms,
                                char *errbuf,
                                size_t errlen);

/**
 * Reads a value. An assignment is JSON under "assignment.<worker>" in the assignment bucket.
 *
 * Parameters: store, bucket, key, timeout_ms - as divvy_store_put(). out - where the value goes,
 * not NULL. errbuf, errlen - see "Errors" above.
 * Returns: OK; NOT_FOUND; INVALID_ARGUMENT; BAD_UTF8; TOO_LONG; NOT_RUNNING; TIMED_OUT; CANCELLED;
 * UNAVAILABLE; UNAUTHORIZED; STORE_ERROR.
 * Ownership: the text is the caller's, freed with divvy_text_free(). It is whatever was written,
 * not necessarily UTF-8.
 * Thread: any. Blocks for up to timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_store_get(struct divvy_store store,
                             int32_t bucket,
                             const char *key,
                             int64_t timeout_ms,
                             struct divvy_text *out,
                             char *errbuf,
                             size_t errlen);

/**
 * Makes an empty list.
 *
 * Parameters: out - where the handle goes, not NULL. errbuf, errlen - see "Errors" above.
 * Returns: OK.
 * Ownership: the caller's, freed with divvy_partitions_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_partitions_new(struct divvy_partitions *out, char *errbuf, size_t errlen);

/**
 * Frees a list. What was made of it stays.
 *
 * Parameters: partitions - the list; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also the second time.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_partitions_free(struct divvy_partitions partitions);

/**
 * Adds a partition at the end. Whether it is there already is checked when the list is used.
 *
 * Parameters: partitions - the list. keys, key_count - the texts that name the partition, in
 * order, each not NULL; 1 to DIVVY_PARTITION_KEYS_MAX. weight - its relative cost; 0 or less:
 * the setting default_weight. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT - there is no key; BAD_UTF8; TOO_LONG.
 * Ownership: the keys are copied.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_partitions_add(struct divvy_partitions partitions,
                                  const char *const *keys,
                                  size_t key_count,
                                  int64_t weight,
                                  char *errbuf,
                                  size_t errlen);

/**
 * Adds every partition of a JSON list: [{"keys": ["tool001", "chamber1"], "weight": 100}, ...].
 * The weight may be left out; other members are ignored.
 *
 * Parameters: partitions - the list. json, length - the text, not NULL unless length is 0, and
 * its bytes, at most DIVVY_BYTES_MAX; no NUL is needed. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT - no such list: nothing is added; BAD_UTF8; TOO_LONG.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_partitions_add_json(struct divvy_partitions partitions,
                                       const char *json,
                                       size_t length,
                                       char *errbuf,
                                       size_t errlen);

/**
 * Tells how many partitions a list has.
 *
 * Returns: the number; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_partitions_count(struct divvy_partitions partitions);

/**
 * Tells how many workers there are.
 *
 * Returns: the number; a status (below 0) for an invalid handle.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
int64_t divvy_plan_input_worker_count(struct divvy_plan_input input);

/**
 * Tells how many partitions there are.
 *
 * Returns: the number; a status (below 0) for an invalid handle.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
int64_t divvy_plan_input_partition_count(struct divvy_plan_input input);

/**
 * Tells how many keys a partition has.
 *
 * Parameters: input - the input. partition - its index.
 * Returns: the number, 0 for an index that is too large; a status (below 0) for an invalid
 * handle.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
int64_t divvy_plan_input_key_count(struct divvy_plan_input input, size_t partition);

/**
 * Tells a worker's id.
 *
 * Parameters: input - the input. worker - its index. length - where the id's length in bytes
 * goes, NULL if not wanted.
 * Returns: the id; NULL for an invalid handle or an index that is too large.
 * Ownership: borrowed until the callback returns.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
const char *divvy_plan_input_worker(struct divvy_plan_input input, size_t worker, size_t *length);

/**
 * Tells a key of a partition.
 *
 * Parameters: input - the input. partition - its index. key - the key's index. length - where
 * the key's length in bytes goes, NULL if not wanted.
 * Returns: the key; NULL for an invalid handle or an index that is too large.
 * Ownership: borrowed until the callback returns.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
const char *divvy_plan_input_key(struct divvy_plan_input input,
                                 size_t partition,
                                 size_t key,
                                 size_t *length);

/**
 * Tells the weight of a partition as the host gave it: 0 or less stands for the default weight.
 *
 * Parameters: input - the input. partition - its index.
 * Returns: the weight; 0 for an invalid handle or an index that is too large.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
int64_t divvy_plan_input_weight(struct divvy_plan_input input, size_t partition);

/**
 * Tells which worker holds a partition now.
 *
 * Parameters: input - the input. partition - its index.
 * Returns: the worker's index; DIVVY_NO_WORKER when nobody holds it, or nobody who is live, and
 * for an invalid handle or an index that is too large.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
uint32_t divvy_plan_input_previous(struct divvy_plan_input input, size_t partition);

/**
 * Tells the name of a state, such as "Scaling".
 *
 * Parameters: state - any number.
 * Returns: the name; "unknown" for a number that this library does not know. Never NULL.
 * Ownership: static, never freed.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
const char *divvy_calculator_state_name(int32_t state);

/**
 * Tells the name of a reason as it stands in assignments, such as "planned_scale"; "" for none.
 *
 * Parameters, Returns, Ownership, Thread, Since: as divvy_calculator_state_name().
 */
const char *divvy_reason_name(int32_t reason);

/**
 * Tells the name of a change of the fleet, such as "joined"; "" for none.
 *
 * Parameters, Returns, Ownership, Thread, Since: as divvy_calculator_state_name().
 */
const char *divvy_member_change_name(int32_t change);

/**
 * Tells the name of a manager's state, such as "Stable".
 *
 * Parameters, Returns, Ownership, Thread, Since: as divvy_calculator_state_name().
 */
const char *divvy_manager_state_name(int32_t state);

/**
 * Tells the name of the level of an alert, such as "warning"; "" for none.
 *
 * Parameters, Returns, Ownership, Thread, Since: as divvy_calculator_state_name().
 */
const char *divvy_alert_level_name(int32_t level);

/**
 * Makes a calculator, not started yet.
 *
 * Parameters: config - the configuration, copied; {0}: all defaults. store - the store, shared;
 * may be freed afterwards. out - where the handle goes, not NULL. errbuf, errlen - see "Errors"
 * above.
 * Returns: OK; INVALID_CONFIG - every broken rule is in the detail.
 * Ownership: the caller's, freed with divvy_calculator_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_calculator_new(struct divvy_config config,
                                  struct divvy_store store,
                                  struct divvy_calculator *out,
                                  char *errbuf,
                                  size_t errlen);

/**
 * Reaches the store, takes over from a former leader, learns what is stored and who is alive, and
 * goes to work. What may pass is retried until the time-out. After a stop it may be called again.
 *
 * Parameters: calculator - the calculator. timeout_ms - the longest wait, 0 to
 * DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - see "Errors" above.
 * Returns: OK; ALREADY_STARTED, also the second time; INVALID_ARGUMENT; NOT_RUNNING - stopped
 * meanwhile; CANCELLED; TIMED_OUT; UNAVAILABLE; UNAUTHORIZED; UNSUPPORTED - the assignment bucket has a
 * time to live; CONFLICT - another leader takes over at this moment; INVALID_DATA - a stored
 * number leaves no room above it. After a failure nothing is left behind and subscriptions stay,
 * unless a callback of the host hangs: then the detail says so, and a stop waits for it.
 * Thread: any. Blocks for up to timeout_ms, and 1 s more for cleaning up after a failure.
 * Since: 0.1.
 */
divvy_status divvy_calculator_start(struct divvy_calculator calculator,
                                    int64_t timeout_ms,
                                    char *errbuf,
                                    size_t errlen);

/**
 * Stops: nothing is published any more, all threads are joined. Subscribers get what is in their
 * backlog, callbacks as far as half of the time allows, and then their end. After OK no callback
 * of this calculator runs or will run. Stopping what is not started ends its subscriptions and
 * returns OK, as a second call does.
 *
 * Parameters: calculator - the calculator. timeout_ms - the longest wait, 0 to
 * DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT; WOULD_DEADLOCK - called from a callback of this calculator;
 * TIMED_OUT - the detail names the threads that are busy and with what: no callback starts any
 * more, nothing new is published, the handle stays valid, call again; CANCELLED - likewise, except
 * that callbacks go on until the next call.
 * Thread: any. Blocks for up to timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_calculator_stop(struct divvy_calculator calculator,
                                   int64_t timeout_ms,
                                   char *errbuf,
                                   size_t errlen);

/**
 * Frees a calculator; one that is started is stopped first, with a time-out of 10 s. Calls of
 * other threads that are under way end safely; calls after it return BAD_HANDLE.
 *
 * Parameters: calculator - the calculator; {0} is allowed and does nothing. errbuf, errlen - see
 * "Errors" above.
 * Returns: OK; BAD_HANDLE, also the second time; WOULD_DEADLOCK and TIMED_OUT as
 * divvy_calculator_stop(), and CANCELLED: nothing is freed, the handle stays valid.
 * Thread: any. Blocks for up to 10 s when it is started.
 * Since: 0.1.
 */
divvy_status divvy_calculator_free(struct divvy_calculator calculator, char *errbuf, size_t errlen);

/**
 * Tells whether a calculator is started and at work.
 *
 * Returns: 1 or 0; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_calculator_is_started(struct divvy_calculator calculator);

/**
 * Tells what a calculator is doing. DIVVY_CALCULATOR_IDLE when it is not started.
 *
 * Returns: a divvy_calculator_state; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_calculator_get_state(struct divvy_calculator calculator);

/**
 * Tells why a calculator is doing what it does.
 *
 * Returns: a divvy_reason, DIVVY_REASON_NONE when it is idle; a status (below 0) for an invalid
 * handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_calculator_scaling_reason(struct divvy_calculator calculator);

/**
 * Tells the version that was last published or adopted.
 *
 * Returns: the version, 0 when there is none; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_calculator_current_version(struct divvy_calculator calculator);

/**
 * Has a new version published, at once or right after the one that is under way, and waits for
 * it. Ignores cooldown and windows.
 *
 * Parameters: calculator - the calculator. timeout_ms - the longest wait, 0 to
 * DIVVY_TIMEOUT_MAX_MS. version - where the new version goes, NULL if not wanted. errbuf,
 * errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT; NOT_RUNNING; WOULD_DEADLOCK - called from a partition source or
 * a strategy; TIMED_OUT - it stays pending, the detail tells the last failure; CANCELLED - it stays
 * pending, too; NO_WORKERS;
 * FENCED; what the store reports where trying again would not help.
 * Thread: any, callbacks of subscribers included. Blocks for up to timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_calculator_trigger_rebalance(struct divvy_calculator calculator,
                                                int64_t timeout_ms,
                                                int64_t *version,
                                                char *errbuf,
                                                size_t errlen);

/**
 * Has the partitions read and compared with the published plan, and waits for that. A change is
 * then pending.
 *
 * Parameters: calculator - the calculator. timeout_ms - the longest wait, 0 to
 * DIVVY_TIMEOUT_MAX_MS. version - where the version in force goes, NULL if not wanted. errbuf,
 * errlen - see "Errors" above.
 * Returns: as divvy_calculator_trigger_rebalance(); SOURCE_FAILED.
 * Thread: any, callbacks of subscribers included. Blocks for up to timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_calculator_refresh(struct divvy_calculator calculator,
                                      int64_t timeout_ms,
                                      int64_t *version,
                                      char *errbuf,
                                      size_t errlen);

/**
 * Pushes the partitions: the whole list, which replaces the former one. May be called before the
 * start; the list is kept over stop and start. Nothing is published before there is a list.
 *
 * Parameters: calculator - the calculator. partitions - the list, copied; an empty one means that
 * every worker gets nothing. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT - a partition is there twice, or the calculator reads its
 * partitions from a callback; TIMED_OUT - the list is taken, but the calculator is too busy to
 * be told: call divvy_calculator_refresh().
 * Thread: any. Blocks for up to 1 s when the calculator is flooded with events.
 * Since: 0.1.
 */
divvy_status divvy_calculator_set_partitions(struct divvy_calculator calculator,
                                             struct divvy_partitions partitions,
                                             char *errbuf,
                                             size_t errlen);

/**
 * Tells everything about a calculator at this moment, as JSON for people and dashboards: state,
 * reason, version, term, workers with what is left of their leases and how far they are
 * behind, what is pending, what it suffers from, counters. Members may be added in any release.
 *
 * Parameters: calculator - the calculator. out - where the text goes, not NULL. errbuf, errlen -
 * see "Errors" above.
 * Returns: OK.
 * Ownership: the text is the caller's, freed with divvy_text_free().
 * Thread: any. Blocks for up to 2 s when the calculator's threads are busy; what they do not
 * tell in time is left empty.
 * Since: 0.1.
 */
divvy_status divvy_calculator_status_json(struct divvy_calculator calculator,
                                          struct divvy_text *out,
                                          char *errbuf,
                                          size_t errlen);

/**
 * Tells a calculator's metrics as Prometheus reads them: text format 0.0.4, every line ended, so that
 * a host's own metrics may follow on the same page. The settings "metrics_namespace" and
 * "metrics_labels" name them; two calculators of one process whose pages are put together need
 * labels that differ. Counters go on over stops and starts.
 *
 * Parameters: calculator - the calculator. out - where the text goes, not NULL. errbuf, errlen -
 * see "Errors" above.
 * Returns: OK.
 * Ownership: the text is the caller's, freed with divvy_text_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_calculator_metrics(struct divvy_calculator calculator,
                                      struct divvy_text *out,
                                      char *errbuf,
                                      size_t errlen);

/**
 * Has a callback called with the current state at once, and then with every event, in order,
 * none dropped and none twice, until it is unsubscribed or the calculator is stopped. May be
 * called before the start; callbacks begin with it. Each call makes another subscription.
 *
 * Parameters: calculator - the calculator. filter - a divvy_event_filter. callback - see
 * divvy_event_fn, not NULL. userdata - handed to it. destroy - frees userdata once no callback
 * runs or will run: before divvy_subscription_free() or divvy_calculator_stop() return OK; NULL
 * allowed. out - where the handle goes, not NULL; written before the first callback. errbuf,
 * errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT - no such filter. On a failure userdata stays the caller's and
 * destroy is not called.
 * Ownership: the subscription is the caller's, ended and freed with divvy_subscription_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_calculator_subscribe(struct divvy_calculator calculator,
                                        int32_t filter,
                                        divvy_event_fn callback,
                                        void *userdata,
                                        divvy_destroy_fn destroy,
                                        struct divvy_subscription *out,
                                        char *errbuf,
                                        size_t errlen);

/**
 * Opens a queue of events to be read with divvy_events_poll(): the current state at once, and
 * then every event, in order, none dropped and none twice, until it is freed or the calculator is
 * stopped. Each call makes another queue with all events.
 *
 * Parameters: calculator - the calculator. filter - a divvy_event_filter. out - where the handle
 * goes, not NULL. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT - no such filter.
 * Ownership: the caller's, freed with divvy_events_free(); it may outlive the calculator.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_calculator_events(struct divvy_calculator calculator,
                                     int32_t filter,
                                     struct divvy_events *out,
                                     char *errbuf,
                                     size_t errlen);

/**
 * Makes a manager, not started yet.
 *
 * Parameters: config - the configuration, copied; {0}: all defaults. All workers of a fleet should
 * have the same one. store - the store, shared; may be freed afterwards. out - where the handle
 * goes, not NULL. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_CONFIG - every broken rule is in the detail. A manager refuses what a
 * calculator used alone may have: windows and graces that do not fit together.
 * Ownership: the caller's, freed with divvy_manager_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_manager_new(struct divvy_config config,
                               struct divvy_store store,
                               struct divvy_manager *out,
                               char *errbuf,
                               size_t errlen);

/**
 * Joins the fleet: sees to the buckets, claims an id, and returns once the first heartbeat is
 * stored. Election and assignment follow; see divvy_manager_wait_state(). What may pass is tried
 * again until the time-out. After a stop it may be called again. With the setting cache_file it
 * also returns, as soon as the store has failed once, with what the file holds: state degraded, the
 * id and the partitions of the former life, lifecycle "cached"; joining goes on meanwhile.
 *
 * Parameters: manager - the manager. timeout_ms - the longest wait, 0 to DIVVY_TIMEOUT_MAX_MS.
 * errbuf, errlen - see "Errors" above.
 * Returns: OK; ALREADY_STARTED, also the second time; INVALID_ARGUMENT; NOT_RUNNING - stopped
 * meanwhile; CANCELLED; IDS_EXHAUSTED - all ids stayed taken; TIMED_OUT - the detail tells the last failure;
 * UNAUTHORIZED; UNSUPPORTED - a bucket has a time to live that cannot be worked with. After a
 * failure nothing is left behind and subscriptions stay.
 * Thread: any. Blocks for up to timeout_ms, and 1 s more for cleaning up after a failure.
 * Since: 0.1.
 */
divvy_status divvy_manager_start(struct divvy_manager manager,
                                 int64_t timeout_ms,
                                 char *errbuf,
                                 size_t errlen);

/**
 * Leaves the fleet, for good or to be back soon, and joins all threads. The calculator ends first,
 * then heartbeat and leadership are given up, the id last. Subscribers get what is in their
 * backlog, and then their end; nothing is held any more. After OK no callback of this manager runs
 * or will run. Stopping what is not started ends its subscriptions and returns OK, as a second
 * call does.
 *
 * Parameters: manager - the manager. departure - a divvy_departure. timeout_ms - the longest wait,
 * 0 to DIVVY_TIMEOUT_MAX_MS; when three quarters of it have not sufficed to tell the store, the
 * rest is left to expire there. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT; WOULD_DEADLOCK - called from a callback of this manager;
 * TIMED_OUT - the detail names the threads that are busy and with what: the handle stays valid,
 * call again; CANCELLED - likewise, and the worker goes on leaving by itself.
 * Thread: any. Blocks for up to timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_manager_stop(struct divvy_manager manager,
                                int32_t departure,
                                int64_t timeout_ms,
                                char *errbuf,
                                size_t errlen);

/**
 * Frees a manager; one that is started is stopped first, with DIVVY_DEPARTURE_LEAVE and a time-out
 * of 10 s. Calls of other threads that are under way end safely; calls after it return BAD_HANDLE.
 *
 * Parameters: manager - the manager; {0} is allowed and does nothing. errbuf, errlen - see
 * "Errors" above.
 * Returns: OK; BAD_HANDLE, also the second time; WOULD_DEADLOCK and TIMED_OUT as
 * divvy_manager_stop(), and CANCELLED: nothing is freed, the handle stays valid.
 * Thread: any. Blocks for up to 10 s when it is started.
 * Since: 0.1.
 */
divvy_status divvy_manager_free(struct divvy_manager manager, char *errbuf, size_t errlen);

/**
 * Tells whether a manager is started: not before divvy_manager_start() has succeeded, not once a
 * stop was asked for, not after a thread of it panicked.
 *
 * Returns: 1 or 0; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_manager_is_started(struct divvy_manager manager);

/**
 * Tells whether the worker leads.
 *
 * Returns: 1 or 0; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_manager_is_leader(struct divvy_manager manager);

/**
 * Tells what a manager is doing.
 *
 * Returns: a divvy_manager_state; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_manager_get_state(struct divvy_manager manager);

/**
 * Waits until a manager is in a state. One that was passed through before the call, or too quickly
 * to be seen, does not count: subscribe to see every one.
 *
 * Parameters: manager - the manager. state - a divvy_manager_state. timeout_ms - the longest wait,
 * 0 to DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT; TIMED_OUT - the detail tells the state that it is in; CANCELLED.
 * Thread: any. Blocks for up to timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_manager_wait_state(struct divvy_manager manager,
                                      int32_t state,
                                      int64_t timeout_ms,
                                      char *errbuf,
                                      size_t errlen);

/**
 * Tells the id under which the worker is a member.
 *
 * Parameters: manager - the manager. out - where the text goes, not NULL. errbuf, errlen - see
 * "Errors" above.
 * Returns: OK; NOT_FOUND - it has none: before it claimed one, and after it lost it.
 * Ownership: the text is the caller's, freed with divvy_text_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_manager_worker_id(struct divvy_manager manager,
                                     struct divvy_text *out,
                                     char *errbuf,
                                     size_t errlen);

/**
 * Tells who leads, as far as is known.
 *
 * Parameters: manager - the manager. out - where the worker's id goes, not NULL. errbuf, errlen -
 * see "Errors" above.
 * Returns: OK; NOT_FOUND - nobody is known to lead.
 * Ownership: the text is the caller's, freed with divvy_text_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_manager_leader(struct divvy_manager manager,
                                  struct divvy_text *out,
                                  char *errbuf,
                                  size_t errlen);

/**
 * Tells what the worker holds at this moment. Before the first assignment that is nothing, with
 * version 0.
 *
 * Parameters: manager - the manager. out - where the handle goes, not NULL. errbuf, errlen - see
 * "Errors" above.
 * Returns: OK.
 * Ownership: the assignment is the caller's, freed with divvy_assignment_free(); it may outlive
 * the manager.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_manager_assignment(struct divvy_manager manager,
                                      struct divvy_assignment *out,
                                      char *errbuf,
                                      size_t errlen);

/**
 * Has the partition source read and a change of it published, where this worker leads.
 *
 * Parameters: manager - the manager. timeout_ms - the longest wait, 0 to DIVVY_TIMEOUT_MAX_MS.
 * version - where the version in force goes, NULL if not wanted. errbuf, errlen - see "Errors"
 * above.
 * Returns: OK; NOT_LEADER - the detail names who leads; otherwise as divvy_calculator_refresh().
 * Thread: any, callbacks of subscribers included. Blocks for up to timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_manager_refresh_partitions(struct divvy_manager manager,
                                              int64_t timeout_ms,
                                              int64_t *version,
                                              char *errbuf,
                                              size_t errlen);

/**
 * Has a new version published at once, where this worker leads.
 *
 * Parameters: manager - the manager. timeout_ms - the longest wait, 0 to DIVVY_TIMEOUT_MAX_MS.
 * version - where the new version goes, NULL if not wanted. errbuf, errlen - see "Errors" above.
 * Returns: OK; NOT_LEADER - the detail names who leads; otherwise as
 * divvy_calculator_trigger_rebalance().
 * Thread: any, callbacks of subscribers included. Blocks for up to timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_manager_trigger_rebalance(struct divvy_manager manager,
                                             int64_t timeout_ms,
                                             int64_t *version,
                                             char *errbuf,
                                             size_t errlen);

/**
 * Pushes the partitions: the whole list, which replaces the former one. Every worker that may lead
 * needs it; whoever leads publishes it. May be called before the start; the list is kept over stop
 * and start.
 *
 * Parameters: manager - the manager. partitions - the list, copied; an empty one means that every
 * worker gets nothing. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT - a partition is there twice, or the manager reads its partitions
 * from a callback; TIMED_OUT - the list is taken, but the calculator is too busy to be told: call
 * divvy_manager_refresh_partitions().
 * Thread: any. Blocks for up to 1 s when the calculator is flooded with events.
 * Since: 0.1.
 */
divvy_status divvy_manager_set_partitions(struct divvy_manager manager,
                                          struct divvy_partitions partitions,
                                          char *errbuf,
                                          size_t errlen);

/**
 * Tells everything about a manager at this moment, as JSON for people and dashboards: state, id,
 * leader, version, term, how many partitions it holds, what it suffers from, and the status of its
 * calculator while it leads. Members may be added in any release.
 *
 * Parameters: manager - the manager. out - where the text goes, not NULL. errbuf, errlen - see
 * "Errors" above.
 * Returns: OK.
 * Ownership: the text is the caller's, freed with divvy_text_free().
 * Thread: any. Blocks for up to 3 s when the manager's threads are busy; what they do not tell in
 * time is left empty.
 * Since: 0.1.
 */
divvy_status divvy_manager_status_json(struct divvy_manager manager,
                                       struct divvy_text *out,
                                       char *errbuf,
                                       size_t errlen);

/**
 * Tells a manager's metrics as Prometheus reads them, those of the worker, of its store and of its
 * calculators included: as divvy_calculator_metrics(). Each handle has metrics of its own, which is
 * why there is a function for each kind and none for the whole process: pages of several handles
 * are put together by the host, under labels that differ. Counters go on over stops and starts, and
 * over every leadership.
 *
 * Parameters: manager - the manager. out - where the text goes, not NULL. errbuf, errlen - see
 * "Errors" above.
 * Returns: OK.
 * Ownership: the text is the caller's, freed with divvy_text_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_manager_metrics(struct divvy_manager manager,
                                   struct divvy_text *out,
                                   char *errbuf,
                                   size_t errlen);

/**
 * Has a callback called with how things are at once (the state, then the id, the leader and the
 * assignment, each where there is one), and then with every event, in order, none dropped and none
 * twice, until it is unsubscribed or the manager is stopped. May be called before the start;
 * callbacks begin with it. Each call makes another subscription.
 *
 * Parameters: manager - the manager. filter - a divvy_manager_event_filter. callback - see
 * divvy_event_fn, not NULL. userdata - handed to it. destroy - frees userdata once no callback
 * runs or will run: before divvy_subscription_free() or divvy_manager_stop() return OK; NULL allowed.
 * out - where the handle goes, not NULL; written before the first callback. errbuf, errlen - see
 * "Errors" above.
 * Returns: OK; INVALID_ARGUMENT - no such filter. On a failure userdata stays the caller's and
 * destroy is not called.
 * Ownership: the subscription is the caller's, ended and freed with divvy_subscription_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_manager_subscribe(struct divvy_manager manager,
                                     int32_t filter,
                                     divvy_event_fn callback,
                                     void *userdata,
                                     divvy_destroy_fn destroy,
                                     struct divvy_subscription *out,
                                     char *errbuf,
                                     size_t errlen);

/**
 * Opens a queue of events to be read with divvy_events_poll(): how things are at once, as with
 * divvy_manager_subscribe(), and then every event, in order, none dropped and none twice, until it
 * is freed or the manager is stopped. Each call makes another queue with all events.
 *
 * Parameters: manager - the manager. filter - a divvy_manager_event_filter. out - where the handle
 * goes, not NULL. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT - no such filter.
 * Ownership: the caller's, freed with divvy_events_free(); it may outlive the manager.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_manager_events(struct divvy_manager manager,
                                  int32_t filter,
                                  struct divvy_events *out,
                                  char *errbuf,
                                  size_t errlen);

/**
 * Tells the version of the plan that an assignment belongs to.
 *
 * Parameters: assignment - the assignment.
 * Returns: the version, 0 before the first one; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_assignment_version(struct divvy_assignment assignment);

/**
 * Tells the term in which an assignment was published.
 *
 * Parameters: assignment - the assignment.
 * Returns: the term, 0 when a leader without terms (parti) wrote it; a status (below 0) for an
 * invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_assignment_term(struct divvy_assignment assignment);

/**
 * Tells why the plan was made, as the leader wrote it, such as "planned_scale"; "cached" for what
 * came from the cache file and the store has not confirmed yet: others may hold it, too.
 *
 * Parameters: assignment - the assignment. length - where the length in bytes goes, NULL if not
 * wanted.
 * Returns: the reason; an empty text before the first assignment and for an invalid handle. Never
 * NULL.
 * Ownership: borrowed until divvy_assignment_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_assignment_lifecycle(struct divvy_assignment assignment, size_t *length);

/**
 * Tells everything about an assignment as a JSON object: {"version": 42, "term": 3, "lifecycle":
 * "planned_scale", "partitions": [{"keys": ["tool001"], "weight": 100}, ...], "added": [...],
 * "removed": [...]}. Members may be added in any release.
 *
 * Parameters, Ownership, Thread, Since: as divvy_assignment_lifecycle().
 * Returns: the text, an empty one for an invalid handle. Never NULL.
 */
const char *divvy_assignment_json(struct divvy_assignment assignment, size_t *length);

/**
 * Tells how many partitions a list has.
 *
 * Parameters: assignment - the assignment. list - a divvy_assignment_list.
 * Returns: the number; a status (below 0): INVALID_ARGUMENT - no such list; for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_assignment_count(struct divvy_assignment assignment, int32_t list);

/**
 * Tells how many keys a partition has.
 *
 * Parameters: assignment - the assignment. list - a divvy_assignment_list. partition - its index there.
 * Returns: the number, 0 for an index that is too large; a status (below 0) as
 * divvy_assignment_count().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_assignment_key_count(struct divvy_assignment assignment,
                                   int32_t list,
                                   size_t partition);

/**
 * Tells a key of a partition.
 *
 * Parameters: assignment - the assignment. list - a divvy_assignment_list. partition - its index there. key -
 * the key's index. length - where the key's length in bytes goes, NULL if not wanted.
 * Returns: the key; NULL for an invalid handle, list or index.
 * Ownership: borrowed until divvy_assignment_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_assignment_key(struct divvy_assignment assignment,
                                 int32_t list,
                                 size_t partition,
                                 size_t key,
                                 size_t *length);

/**
 * Tells the weight of a partition as it was assigned: 0 or less stands for the default weight.
 *
 * Parameters: assignment - the assignment. list - a divvy_assignment_list. partition - its index there.
 * Returns: the weight; 0 for an invalid handle, list or index.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_assignment_weight(struct divvy_assignment assignment,
                                int32_t list,
                                size_t partition);

/**
 * Frees an assignment.
 *
 * Parameters: assignment - the assignment; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also the second time.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_assignment_free(struct divvy_assignment assignment);

/**
 * Ends a subscription and frees it. After OK no callback runs or will run, and its userdata was
 * destroyed. From inside a callback of the same calculator it returns at once; then that holds
 * from the callback's return on.
 *
 * Parameters: subscription - the subscription; {0} is allowed and does nothing. timeout_ms - the
 * longest wait for a callback that runs, 0 to DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - see "Errors"
 * above.
 * Returns: OK; BAD_HANDLE, also the second time; INVALID_ARGUMENT; TIMED_OUT - the callback still
 * runs, no further one will: the handle stays valid, call again.
 * Thread: any. Blocks for up to timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_subscription_free(struct divvy_subscription subscription,
                                     int64_t timeout_ms,
                                     char *errbuf,
                                     size_t errlen);

/**
 * Takes the next event out of a queue, waiting for it if need be.
 *
 * Parameters: events - the queue. timeout_ms - the longest wait, 0 to DIVVY_TIMEOUT_MAX_MS; -1:
 * without limit. out - where the event goes, not NULL. errbuf, errlen - see "Errors" above.
 * Returns: OK; TIMED_OUT - nothing came in time; WOKEN - see divvy_events_wake(); CLOSED - no
 * event will come any more: all were read, and the calculator was stopped or freed, or has
 * failed, or the last event said that this queue lagged, or it was freed meanwhile;
 * INVALID_ARGUMENT.
 * Ownership: the event is the caller's, freed with divvy_event_free().
 * Thread: any; of several, each event goes to one. Blocks for up to timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_events_poll(struct divvy_events events,
                               int64_t timeout_ms,
                               struct divvy_event *out,
                               char *errbuf,
                               size_t errlen);

/**
 * Ends every divvy_events_poll() of this queue that waits now, with WOKEN; when none does, the
 * next one that would wait returns at once.
 *
 * Parameters: events - the queue. errbuf, errlen - see "Errors" above.
 * Returns: OK.
 * Thread: any. Does not block. Not from a signal handler.
 * Since: 0.1.
 */
divvy_status divvy_events_wake(struct divvy_events events, char *errbuf, size_t errlen);

/**
 * Tells a file descriptor for event loops: readable exactly while divvy_events_poll() with a
 * time-out of 0 would return something other than TIMED_OUT. Wait for it level-triggered, then
 * poll with 0 until TIMED_OUT. A second call tells the same descriptor.
 *
 * Parameters: events - the queue. fd - where the descriptor goes, not NULL. errbuf, errlen - see
 * "Errors" above.
 * Returns: OK; UNAVAILABLE - the system gave no descriptor; UNSUPPORTED - not on this platform.
 * Ownership: the library's, closed with the queue: wait for it, never read or close it, and take
 * it out of the event loop before divvy_events_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_events_fd(struct divvy_events events, int *fd, char *errbuf, size_t errlen);

/**
 * Frees a queue. Polls of other threads that wait return CLOSED.
 *
 * Parameters: events - the queue; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also the second time.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_events_free(struct divvy_events events);

/**
 * Tells the name of a kind of event, such as "published".
 *
 * Parameters, Returns, Ownership, Thread, Since: as divvy_calculator_state_name().
 */
const char *divvy_event_kind_name(int32_t kind);

/**
 * Tells what an event is about.
 *
 * Parameters: event - the event.
 * Returns: a divvy_event_kind; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_get_kind(struct divvy_event event);

/**
 * Tells the state after the change.
 *
 * Parameters: event - the event.
 * Returns: a divvy_calculator_state, of DIVVY_EVENT_MANAGER_STATE a divvy_manager_state; 0 for other kinds of events and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_state(struct divvy_event event);

/**
 * Tells the state before the change.
 *
 * Parameters, Returns, Thread, Since: as divvy_event_state().
 */
int32_t divvy_event_from_state(struct divvy_event event);

/**
 * Tells why the plan is or was made.
 *
 * Parameters: event - the event.
 * Returns: a divvy_reason; DIVVY_REASON_NONE for other kinds of events, for a change to
 * DIVVY_CALCULATOR_IDLE, and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_reason(struct divvy_event event);

/**
 * Tells the version: of the plan, of the last plan at a change of state, of the assignment, or of
 * what is assigned to a worker that lags.
 *
 * Parameters: event - the event.
 * Returns: the version; 0 when there is none, for other kinds of events, and for an invalid
 * handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_event_version(struct divvy_event event);

/**
 * Tells which version a worker that lags has applied.
 *
 * Parameters: event - the event.
 * Returns: the version; 0 when it has applied none, for other kinds of events, and for an invalid
 * handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_event_applied_version(struct divvy_event event);

/**
 * Tells when the state changed, or since when the calculator is degraded: nanoseconds of the
 * clock that runs on while the system sleeps (CLOCK_BOOTTIME on Linux, CLOCK_MONOTONIC
 * elsewhere).
 *
 * Parameters: event - the event.
 * Returns: the time; 0 for other kinds of events, when nothing is wrong any more, and for an
 * invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
uint64_t divvy_event_time_ns(struct divvy_event event);

/**
 * Tells how the fleet changed.
 *
 * Parameters: event - the event.
 * Returns: a divvy_member_change; DIVVY_MEMBER_NONE for other kinds of events and for an invalid
 * handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_member_change(struct divvy_event event);

/**
 * Tells how many workers the published plan has.
 *
 * Parameters: event - the event.
 * Returns: the number; 0 for other kinds of events and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
uint64_t divvy_event_worker_count(struct divvy_event event);

/**
 * Tells how many partitions the published plan has.
 *
 * Parameters, Returns, Thread, Since: as divvy_event_worker_count().
 */
uint64_t divvy_event_partition_count(struct divvy_event event);

/**
 * Tells how many partitions changed hands with the published plan.
 *
 * Parameters, Returns, Thread, Since: as divvy_event_worker_count().
 */
uint64_t divvy_event_moved_count(struct divvy_event event);

/**
 * Tells how many events a subscriber that was too slow did not get.
 *
 * Parameters, Returns, Thread, Since: as divvy_event_worker_count().
 */
uint64_t divvy_event_missed_count(struct divvy_event event);

/**
 * Tells the status of a failure.
 *
 * Parameters: event - the event.
 * Returns: a divvy_status; 0 for other kinds of events and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_status(struct divvy_event event);

/**
 * Tells which worker joined, left, went missing, came back, was lost or lags, or whose id it is
 * about.
 *
 * Parameters: event - the event. length - where the length in bytes goes, NULL if not wanted.
 * Returns: the worker's id; an empty text for other kinds of events and for an invalid handle.
 * Never NULL.
 * Ownership: borrowed until the event is freed, or the callback returns that it was handed to.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_event_worker(struct divvy_event event, size_t *length);

/**
 * Tells what an event says, for people.
 *
 * Parameters, Returns, Ownership, Thread, Since: as divvy_event_worker().
 */
const char *divvy_event_message(struct divvy_event event, size_t *length);

/**
 * Tells which operation failed, such as "publish", or the part of it that went wrong.
 *
 * Parameters, Returns, Ownership, Thread, Since: as divvy_event_worker().
 */
const char *divvy_event_operation(struct divvy_event event, size_t *length);

/**
 * Tells which key of the store a failure was about; empty, too, when it was about none.
 *
 * Parameters, Returns, Ownership, Thread, Since: as divvy_event_worker().
 */
const char *divvy_event_key(struct divvy_event event, size_t *length);

/**
 * Tells how often what failed was tried in vain, this time included.
 *
 * Parameters: event - the event.
 * Returns: the number, 1 where nothing was tried again; 0 for other kinds of events and for an
 * invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
uint32_t divvy_event_attempts(struct divvy_event event);

/**
 * Tells everything about an event as a JSON object with the member "kind" and those that apply.
 *
 * Parameters, Returns, Ownership, Thread, Since: as divvy_event_worker().
 */
const char *divvy_event_json(struct divvy_event event, size_t *length);

/**
 * Frees an event that divvy_events_poll() returned.
 *
 * Parameters: event - the event; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also the second time.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_event_free(struct divvy_event event);

/**
 * Tells what the worker holds after the change, what was added and what was removed.
 *
 * Parameters: event - the event, of kind DIVVY_EVENT_ASSIGNMENT. out - where the handle goes, not
 * NULL. errbuf, errlen - see "Errors" above.
 * Returns: OK; INVALID_ARGUMENT - the event is about something else.
 * Ownership: the assignment is the caller's, freed with divvy_assignment_free(); it may outlive
 * the event.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_event_assignment(struct divvy_event event,
                                    struct divvy_assignment *out,
                                    char *errbuf,
                                    size_t errlen);

/**
 * Tells whether the worker leads from now on.
 *
 * Parameters: event - the event.
 * Returns: 1 or 0; 0 for other kinds of events and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_is_leader(struct divvy_event event);

/**
 * Tells how alarming it is that degraded mode lasts.
 *
 * Parameters: event - the event.
 * Returns: a divvy_alert_level; DIVVY_ALERT_NONE for other kinds of events and for an invalid
 * handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_alert_level(struct divvy_event event);

/**
 * Tells for how many milliseconds degraded mode has lasted.
 *
 * Parameters: event - the event.
 * Returns: the time; 0 for other kinds of events and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
uint64_t divvy_event_lasted_ms(struct divvy_event event);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DIVVY_H */
