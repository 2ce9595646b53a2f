/*
 * divvy: divides partitions among a changing fleet of workers. C ABI.
 *
 * Generated from the library's source by cbindgen. Do not edit.
 *
 * INDEX
 *
 *   to                                           call
 *   check header against library                 divvy_check_abi
 *   configure                                    divvy_config_new, _set, _merge_json, _merge_env, _dump
 *   list partitions                              divvy_config_set_source, or
 *                                                divvy_manager_set_partitions
 *   connect to NATS, or use memory               divvy_store_open
 *   supply NATS credentials by callback          divvy_config_set_credentials
 *   run a worker                                 divvy_manager_new, _start, _stop, _free
 *   receive assignments by callback              divvy_manager_subscribe, divvy_event_assignment
 *   receive events in an event loop              divvy_manager_events, divvy_events_fd, _poll
 *   read an assignment                           divvy_assignment_count, _key_count, _key, _weight
 *   answer a readiness probe                     divvy_manager_is_ready
 *   answer a liveness probe                      divvy_manager_is_live
 *   export metrics                               divvy_manager_metrics
 *   inspect a worker                             divvy_manager_status_json, _worker_id, _leader
 *   rebalance now                                divvy_manager_trigger_rebalance
 *   run only the leader's part                   divvy_calculator_new, _start, _stop, _free
 *   use an own strategy or election              divvy_config_set_strategy, _set_election
 *   end a blocking call early                    divvy_cancel_new, _use, _fire, _free
 *   receive log records                          divvy_log_set, divvy_log_field_count, _name, _value
 *   report a failed callback                     divvy_callback_set_error
 *   read the fields of an error                  divvy_error_operation, _key, _attempts
 *
 * RULES
 *
 * Language. C99 or later, C++11 or later. divvy.hpp adds destructors, exceptions and std::function.
 *
 * Handles. Every object is a small struct passed by value: divvy_calculator c = {0}. {0} is no
 * object. Handles are looked up in a table and never dereferenced: a freed or invalid handle gives
 * BAD_HANDLE, {0} gives NULL_ARGUMENT. Copies of a handle are the same object. Functions that free
 * accept {0}. Freeing a handle while another thread uses it is safe: the other call ends as if it
 * had come first.
 *
 * Errors. Functions that can fail return a divvy_status; 0 is success. On failure one line of text is
 * written to errbuf, truncated to errlen bytes and NUL-terminated. errbuf may be NULL; 256 bytes are
 * enough for most messages. divvy_error_operation(), _key() and _attempts() read further fields from
 * the same buffer. Outputs are written on success only. In addition to the listed statuses, every
 * function with a handle may return NULL_ARGUMENT (a required handle is {0} or a required pointer is
 * NULL), BAD_HANDLE, FORKED, and PANICKED (a caught defect of the library; please report it).
 *
 * Text. Input is NUL-terminated UTF-8 of at most DIVVY_TEXT_MAX bytes, or bytes with a length where
 * the function says so. Output is NUL-terminated, and its length is available.
 *
 * Memory. Free each object with its own ..._free() function, never with free(). All input is copied.
 * userdata belongs to the library after a successful call; destroy is then called exactly once.
 * userdata is used from threads of the library.
 *
 * Time. Durations are milliseconds, 0 to DIVVY_TIMEOUT_MAX_MS.
 *
 * Threads. Any function may be called from any thread, concurrently, and inside callbacks, unless its
 * comment says otherwise. The library's threads are named "dv-..." and block all signals. The library
 * does not change signal handling. Do not call it from a signal handler.
 *
 * Callbacks must return. An exception or a longjmp out of a callback is undefined behaviour (divvy.hpp
 * catches exceptions).
 *
 * fork. Use the library on one side of a fork only. In the child of a process that has created a
 * handle, every function that needs a handle returns FORKED or its fallback. Functions without
 * handles, such as divvy_version(), work.
 *
 * Process. The library never writes to the standard streams, never ends the process, and stays loaded
 * after dlclose().
 *
 * Compatibility. The SONAME is libdivvy.so.0.MINOR before 1.0 and libdivvy.so.MAJOR afterwards.
 * DIVVY_ABI_VERSION changes with the SONAME. While both stay the same, no function, constant or type
 * is removed, renamed, renumbered or given other parameters. Any release may add functions, statuses,
 * event kinds, settings and members of JSON objects. Handle unknown numbers as their documentation
 * says.
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
 * Number of the binary interface of this header.
 */
#define DIVVY_ABI_VERSION 1

/**
 * Maximum length of a text argument in bytes, without the NUL.
 */
#define DIVVY_TEXT_MAX 16384

/**
 * Maximum length of a JSON or value argument, in bytes.
 */
#define DIVVY_BYTES_MAX 268435456

/**
 * Maximum timeout of a call, in milliseconds: one year.
 */
#define DIVVY_TIMEOUT_MAX_MS 31536000000

/**
 * Maximum number of keys of a partition.
 */
#define DIVVY_PARTITION_KEYS_MAX 64

/**
 * The owner of a partition without an owner.
 */
#define DIVVY_NO_WORKER UINT32_MAX

/**
 * How a call ended. 0 is success; -1 to -99 is misuse by the caller, -100 to -199 comes from the
 * environment, -200 and below from the library itself. Numbers are never reused. New ones may
 * appear in any release: treat an unknown one as a failure of its range.
 */
enum divvy_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Success.
     */
    DIVVY_OK = 0,
    /**
     * A required pointer or handle is NULL or {0}.
     */
    DIVVY_NULL_ARGUMENT = -1,
    /**
     * The handle was freed, is of another kind, or was never one.
     */
    DIVVY_BAD_HANDLE = -2,
    /**
     * An argument breaks a rule that its documentation states.
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
     * A setting does not exist, cannot be parsed or breaks a rule. The message lists each.
     */
    DIVVY_INVALID_CONFIG = -6,
    /**
     * The handle is not started, or was stopped.
     */
    DIVVY_NOT_RUNNING = -7,
    /**
     * The handle is already started.
     */
    DIVVY_ALREADY_STARTED = -8,
    /**
     * The call would wait for its own thread: for example a stop from inside a callback.
     */
    DIVVY_WOULD_DEADLOCK = -9,
    /**
     * This process was forked from the one that used the library.
     */
    DIVVY_FORKED = -10,
    /**
     * The header that the program was compiled with does not match this library.
     */
    DIVVY_ABI_MISMATCH = -11,
    /**
     * There are no further events. Not a failure.
     */
    DIVVY_CLOSED = -12,
    /**
     * A wake ended the wait. Not a failure.
     */
    DIVVY_WOKEN = -13,
    /**
     * The key has no value. Not a failure.
     */
    DIVVY_NOT_FOUND = -14,
    /**
     * The caller cancelled the call.
     */
    DIVVY_CANCELLED = -15,
    /**
     * The deadline passed. The message says what was still in progress.
     */
    DIVVY_TIMED_OUT = -100,
    /**
     * The store is unreachable or does not answer.
     */
    DIVVY_UNAVAILABLE = -101,
    /**
     * The store refuses the credentials, or a permission is missing.
     */
    DIVVY_UNAUTHORIZED = -102,
    /**
     * The store, the bucket, the platform or this build does not support the request.
     */
    DIVVY_UNSUPPORTED = -103,
    /**
     * A newer leader has taken over: nothing of this term is accepted any more.
     */
    DIVVY_FENCED = -104,
    /**
     * A conditional write found another revision than expected.
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
     * A value is larger than the store accepts.
     */
    DIVVY_TOO_LARGE = -108,
    /**
     * Any other failure that the store reported.
     */
    DIVVY_STORE_ERROR = -109,
    /**
     * The host's partition source failed or returned an unusable list.
     */
    DIVVY_SOURCE_FAILED = -110,
    /**
     * The host's strategy failed or panicked.
     */
    DIVVY_STRATEGY_FAILED = -111,
    /**
     * A strategy returned a plan that cannot be used.
     */
    DIVVY_INVALID_PLAN = -112,
    /**
     * Every stable id of the configured range is taken.
     */
    DIVVY_IDS_EXHAUSTED = -113,
    /**
     * Another process owns this worker's id.
     */
    DIVVY_ID_LOST = -114,
    /**
     * This worker does not lead, and only a leader can serve the call.
     */
    DIVVY_NOT_LEADER = -115,
    /**
     * The buckets belong to another fleet: the configured name or key prefixes differ.
     */
    DIVVY_WRONG_FLEET = -116,
    /**
     * A panic was caught: a defect of the library. Please report it with the message.
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
 * A bucket of the fleet. The settings map each to a name in the store.
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
     * Heartbeats of the workers. Entries expire.
     */
    DIVVY_BUCKET_HEARTBEAT = 3,
    /**
     * Assignments, the fence record and the commit record. Nothing expires.
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
 * The kind of an event. Any release may add kinds: ignore unknown ones.
 */
enum divvy_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The calculator's state changed. The first event of a subscriber reports the current state:
     * `from` and `state` are equal. Members: `from`, `state`, `reason`, `version`, `time_ns`.
     */
    DIVVY_EVENT_CALCULATOR_STATE = 1,
    /**
     * The membership of a worker changed. Members: `change`, `worker`.
     */
    DIVVY_EVENT_MEMBER = 2,
    /**
     * A plan was published. Members: `version`, `reason`, `worker_count`, `partition_count`,
     * `moved_count`, `max_to_mean`.
     */
    DIVVY_EVENT_PUBLISHED = 3,
    /**
     * A job of the calculator failed. It stays pending and is retried. Members: `code`,
     * `message`, `operation`, `key`, `attempts`.
     */
    DIVVY_EVENT_FAILED = 4,
    /**
     * The causes of degradation changed. `message` names each cause and what still works; it is
     * empty if the calculator is no longer degraded. `time_ns` is the time of the first cause.
     * Members: `causes`, `message`, `time_ns`.
     */
    DIVVY_EVENT_DEGRADED = 5,
    /**
     * A newer leader has taken over, or the fence record was removed: this calculator publishes
     * nothing more.
     */
    DIVVY_EVENT_LEADERSHIP_LOST = 6,
    /**
     * The subscriber was too slow, and its subscription is closed. This is its last event.
     * Members: `missed_count`.
     */
    DIVVY_EVENT_LAGGED = 7,
    /**
     * A thread panicked, and the handle has failed. This is the last event. Members: `code`,
     * `message`.
     */
    DIVVY_EVENT_FATAL = 8,
    /**
     * A shadow (setting `shadow`) would have published a plan. Members: `version`, `reason`,
     * `worker_count`, `partition_count`, `moved_count`, `max_to_mean`.
     */
    DIVVY_EVENT_WOULD_PUBLISH = 9,
    /**
     * The live leader that a shadow watches published a plan. `message` says how the shadow's
     * plan differs. Members: `version`, `term`, `lifecycle`, `worker_count`, `partition_count`,
     * `moved_count`, `max_to_mean`, `message`, `comparison`.
     */
    DIVVY_EVENT_LEADER_PUBLISHED = 10,
    /**
     * The circuit breaker of the store changed its state. `message` is the failure that opened
     * it, or empty if it is closed. Members: `state`, `message`.
     */
    DIVVY_EVENT_BREAKER = 11,
    /**
     * A live worker has not applied its assignment within `apply_timeout`. Reported once, until
     * the worker has caught up. Members: `worker`, `version`, `applied_version`, `lasted_ms`,
     * `message`.
     */
    DIVVY_EVENT_WORKER_LAGGING = 12,
    /**
     * A malformed value in the store was ignored. Each key is reported once in
     * `malformed_window`, and at most `malformed_threshold` keys. Members: `bucket`, `key`,
     * `value`, `message`.
     */
    DIVVY_EVENT_MALFORMED = 13,
    /**
     * The configuration of a live worker has differed from the leader's for a heartbeat TTL.
     * Reported again when the parts that differ change. An empty list: it agrees again. Members:
     * `worker`, `parts`, `message`.
     */
    DIVVY_EVENT_CONFIG_MISMATCH = 14,
    /**
     * The leader holds a partition list back that lost more than `max_list_shrink` or became
     * empty. `message` says how to confirm it. It is empty, and the counts are 0, if no list is
     * held back any more. Members: `partition_count`, `lost_count`, `message`.
     */
    DIVVY_EVENT_LIST_HELD = 15,
    /**
     * A published plan leaves `partition_count` partitions without an owner, because an
     * assignment with them would be too large for the store; or the loss of one worker would lead
     * there. `partitions` lists them. `message` says what to do; it is empty if neither is the
     * case any more. Members: `version`, `partition_count`, `partitions`, `message`.
     */
    DIVVY_EVENT_ASSIGNMENT_LIMIT = 16,
    /**
     * The manager's state changed. The first event of a subscriber reports the current state:
     * `from` and `state` are equal. Members: `from`, `state`, `time_ns`.
     */
    DIVVY_EVENT_MANAGER_STATE = 20,
    /**
     * The id of the worker changed. `worker` is empty if it has none. Members: `worker`.
     */
    DIVVY_EVENT_WORKER_ID = 21,
    /**
     * Another process owns the id. The worker released its partitions and claims another id.
     * Members: `worker`.
     */
    DIVVY_EVENT_WORKER_ID_LOST = 22,
    /**
     * The key of the id had disappeared, and the worker claimed it again. Members: `worker`.
     */
    DIVVY_EVENT_WORKER_ID_REGAINED = 23,
    /**
     * The worker's assignment changed, or a new version of the same partitions was applied.
     * Members: `version`, `term`, `lifecycle`, `partitions`, `added`, `removed`.
     */
    DIVVY_EVENT_ASSIGNMENT = 24,
    /**
     * The leader changed. `worker` is empty if there is none. Members: `worker`, `is_leader`.
     */
    DIVVY_EVENT_LEADER = 25,
    /**
     * Degraded mode begins: the store is unreachable, and the assignment may be out of date.
     * Members: `message`.
     */
    DIVVY_EVENT_OUTAGE = 26,
    /**
     * Degraded mode has lasted long enough to alert an operator. Members: `level`, `lasted_ms`.
     */
    DIVVY_EVENT_ALERT = 27,
    /**
     * Degraded mode ended. Members: `lasted_ms`.
     */
    DIVVY_EVENT_RECOVERED = 28,
    /**
     * An operation of the manager failed and is retried. Reported once until it succeeds.
     * Members: `code`, `message`, `operation`, `key`, `attempts`.
     */
    DIVVY_EVENT_MANAGER_FAILED = 29,
    /**
     * The calculator of this worker panicked: it no longer leads. Members: `code`, `message`.
     */
    DIVVY_EVENT_CALCULATOR_FATAL = 30,
    /**
     * A newer process with the same `instance` took the id over. The worker released its
     * partitions and claims another id. Members: `worker`.
     */
    DIVVY_EVENT_WORKER_ID_TAKEN_OVER = 31,
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
     * No work is pending, or the pending work waits for the cooldown or a retry.
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
     * A plan without the workers that were declared dead is being computed and published.
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
 * Why a plan is made: the `lifecycle` of the assignments that it leads to.
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
     * The end of the window that follows a start without workers.
     */
    DIVVY_REASON_COLD_START = 1,
    /**
     * Published when a new leader finds partitions without an owner: immediately, or, for a fleet
     * without a plan, after `initial_delay`.
     */
    DIVVY_REASON_COLD_START_IMMEDIATE = 2,
    /**
     * The end of the window that follows the first plan of a fleet.
     */
    DIVVY_REASON_COLD_START_FINAL = 3,
    /**
     * Workers joined or left in an orderly way.
     */
    DIVVY_REASON_PLANNED_SCALE = 4,
    /**
     * A large part of the fleet disappeared and some of it returned.
     */
    DIVVY_REASON_RESTART = 5,
    /**
     * Workers were declared dead.
     */
    DIVVY_REASON_EMERGENCY = 6,
    /**
     * The host requested it.
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
 * How the membership of one worker changed.
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
     * Its first heartbeat was observed.
     */
    DIVVY_MEMBER_JOINED = 1,
    /**
     * It deleted its heartbeat: a graceful leave.
     */
    DIVVY_MEMBER_LEFT = 2,
    /**
     * Its lease expired.
     */
    DIVVY_MEMBER_SUSPECTED = 3,
    /**
     * It was suspected, and its heartbeats continue.
     */
    DIVVY_MEMBER_RETURNED = 4,
    /**
     * It was suspected for longer than `emergency_grace_period`.
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
 * Which events of a calculator a subscriber receives.
 */
enum divvy_event_filter
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * All but changes of single members.
     */
    DIVVY_FILTER_STATE = 1,
    /**
     * All events.
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
     * Failures that need attention.
     */
    DIVVY_LOG_ERROR = 1,
    /**
     * Unusual conditions.
     */
    DIVVY_LOG_WARN = 2,
    /**
     * Normal operation, a few lines per rebalance.
     */
    DIVVY_LOG_INFO = 3,
    /**
     * Details.
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
     * Not started, or preparing the buckets.
     */
    DIVVY_MANAGER_INIT = 1,
    /**
     * Claiming a stable id.
     */
    DIVVY_MANAGER_CLAIMING_ID = 2,
    /**
     * A member of the fleet. No leader is known.
     */
    DIVVY_MANAGER_ELECTION = 3,
    /**
     * A leader is known. This worker has no assignment yet.
     */
    DIVVY_MANAGER_WAITING_ASSIGNMENT = 4,
    /**
     * The assignment is applied.
     */
    DIVVY_MANAGER_STABLE = 5,
    /**
     * This worker leads and waits for further workers to join or leave.
     */
    DIVVY_MANAGER_SCALING = 6,
    /**
     * This worker leads, and computes and publishes a plan.
     */
    DIVVY_MANAGER_REBALANCING = 7,
    /**
     * This worker leads, and publishes a plan without the workers that were declared dead.
     */
    DIVVY_MANAGER_EMERGENCY = 8,
    /**
     * The store is unreachable: the assignment may be out of date, or ownership is suspended.
     */
    DIVVY_MANAGER_DEGRADED = 9,
    /**
     * Leaving, or stopped.
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
 * Which events of a manager a subscriber receives. The final events, `lagged` and `fatal`, are
 * delivered to every subscriber.
 */
enum divvy_manager_event_filter
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Changes of this worker's assignment only.
     */
    DIVVY_MANAGER_FILTER_ASSIGNMENT = 1,
    /**
     * Events of this worker: its state, id, assignment, outages, failures, and the leader.
     */
    DIVVY_MANAGER_FILTER_WORKER = 2,
    /**
     * Those, and the events of its calculator while this worker leads.
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
 * How a worker departs.
 */
enum divvy_departure
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It leaves: its partitions are handed to other workers immediately.
     */
    DIVVY_DEPARTURE_LEAVE = 1,
    /**
     * It returns soon: heartbeat and id are left to expire, so that a worker that starts within
     * heartbeat TTL and grace keeps the id and its partitions.
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
 * How serious it is that degraded mode lasts.
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
 * A list of partitions of an assignment.
 */
enum divvy_assignment_list
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * All owned partitions.
     */
    DIVVY_LIST_OWNED = 1,
    /**
     * Partitions added by the change; empty unless from an event.
     */
    DIVVY_LIST_ADDED = 2,
    /**
     * Partitions removed by the change; empty unless from an event.
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
 * The state of the circuit breaker that guards the store.
 */
enum divvy_breaker_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Calls pass.
     */
    DIVVY_BREAKER_CLOSED = 1,
    /**
     * One call probes the store; all others fail immediately.
     */
    DIVVY_BREAKER_HALF_OPEN = 2,
    /**
     * Calls fail immediately.
     */
    DIVVY_BREAKER_OPEN = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum divvy_breaker_state divvy_breaker_state;
#else
typedef int32_t divvy_breaker_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A property of a setting.
 */
enum divvy_setting_field
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Its name, such as `cooldown`. In the environment it is in upper case.
     */
    DIVVY_SETTING_NAME = 1,
    /**
     * The type of its value: text, list, path, duration, number, integer, boolean or choice.
     */
    DIVVY_SETTING_TYPE = 2,
    /**
     * Its default.
     */
    DIVVY_SETTING_DEFAULT = 3,
    /**
     * Which values it may have, and how they relate to those of other settings.
     */
    DIVVY_SETTING_RANGE = 4,
    /**
     * What it does.
     */
    DIVVY_SETTING_HELP = 5,
    /**
     * Its value; secrets are masked.
     */
    DIVVY_SETTING_VALUE = 6,
    /**
     * Where the value came from: default, code, json, or env and the variable.
     */
    DIVVY_SETTING_ORIGIN = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum divvy_setting_field divvy_setting_field;
#else
typedef int32_t divvy_setting_field;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A text created by the library. Free it with divvy_text_free().
 */
typedef struct divvy_text {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_text;

/**
 * A cancellation handle: ends blocking calls before their timeout. One handle serves any number of
 * calls and threads until it is fired.
 *
 * The following calls return CANCELLED: start, stop, free, trigger_rebalance, refresh,
 * refresh_partitions and wait_state of calculators and managers, divvy_store_open(), and
 * stop, ensure, put, delete and get of stores. Other blocking calls have a timeout or a wake of
 * their own.
 */
typedef struct divvy_cancel {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_cancel;

/**
 * A log record. Valid until the log callback returns.
 */
typedef struct divvy_log_record {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_log_record;

/**
 * Receives every log record.
 *
 * Parameters: userdata - the value set together with the callback. level - DIVVY_LOG_ERROR to
 * DIVVY_LOG_TRACE. target - the part of the library, such as "divvy::calculator". message,
 * message_length - the text, NUL-terminated, and its bytes; both strings are valid until the
 * callback returns. record - read its fields (key=value) with divvy_log_field_count(), _name(),
 * _value() and _is_number(); valid until the callback returns.
 * Thread: "dv-log", one call at a time, in order, with no lock held. A slow callback loses records;
 * it delays nothing. Must not call divvy_log_set(), must not throw or call longjmp.
 */
typedef void (*divvy_log_fn)(void *userdata,
                             int32_t level,
                             const char *target,
                             const char *message,
                             size_t message_length,
                             struct divvy_log_record record);

/**
 * Frees the userdata of a callback. Called exactly once, after the last use. NULL: nothing to free.
 *
 * Thread: any thread of the library, or the thread that ends the use. Must not call into the
 * library.
 */
typedef void (*divvy_destroy_fn)(void *userdata);

/**
 * The credentials of one login. Empty until divvy_credentials_set_token() or
 * divvy_credentials_set_jwt() fills it.
 */
typedef struct divvy_credentials {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_credentials;

/**
 * Settings by name. divvy_config_dump() lists all names with their values. Values are text:
 * durations such as "1m30s", "250ms" or "0", numbers, "true" and "false", lists separated by commas.
 */
typedef struct divvy_config {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_config;

/**
 * A list of partitions. Each partition has one or more keys, unique in the list, and a weight.
 */
typedef struct divvy_partitions {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_partitions;

/**
 * Lists all partitions. Called with an empty list; fill it with divvy_partitions_add() or
 * divvy_partitions_add_json().
 *
 * Parameters: userdata - the value set together with the callback. partitions - the list, valid
 * until the callback returns; must not be freed. timeout_ms - time within which to return
 * (the setting host_call_timeout); a longer call is reported until it returns.
 * Returns: DIVVY_OK (0); anything else is a failure: the last list remains in force and the call is
 * retried.
 * Thread: "dv-source", one call at a time for each calculator. May block: plans are
 * made of the last list meanwhile. Must not call divvy_calculator_stop(), _free(),
 * _trigger_rebalance() or _refresh() of the same calculator (they return WOULD_DEADLOCK), must not
 * throw or call longjmp.
 */
typedef int32_t (*divvy_source_fn)(void *userdata,
                                   struct divvy_partitions partitions,
                                   int64_t timeout_ms);

/**
 * Input of a strategy: at least one worker, sorted bytewise; partitions, sorted key by key; and the
 * current owner of each partition. Valid until the strategy's callback returns.
 */
typedef struct divvy_plan_input {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_plan_input;

/**
 * Computes a plan: writes the index of a worker for each partition. The same input must always give
 * the same plan.
 *
 * Parameters: userdata - the value set together with the callback. input - workers and partitions.
 * owners - one element for each partition, all preset to DIVVY_NO_WORKER; each must be set to the
 * index of a worker. owner_count - their number.
 * Returns: DIVVY_OK (0); anything else is a failure: the last plan remains in force and the call is
 * retried, as it is when an owner is missing or does not exist.
 * Thread: "dv-publish", one call at a time for each calculator. May block. Must not call
 * divvy_calculator_stop(), _free(), _trigger_rebalance() or _refresh() of the same calculator (they
 * return WOULD_DEADLOCK), must not throw or call longjmp.
 */
typedef int32_t (*divvy_strategy_fn)(void *userdata,
                                     struct divvy_plan_input input,
                                     uint32_t *owners,
                                     size_t owner_count);

/**
 * Acquires or renews the leadership for a worker. Called repeatedly while the worker is a member:
 * three times within the last grant, or within the setting election_timeout.
 *
 * Parameters: userdata - the value set together with the callback. worker - the worker's id, valid
 * until the callback returns. timeout_ms - time within which to return. lease_ms - receives how many
 * milliseconds from now this worker leads; preset to 0: another worker leads.
 * Returns: DIVVY_OK (0); anything else means that the leader is unknown: a leader continues until
 * shortly before its last grant ends.
 * Thread: "dv-io" of the manager; calls of several threads may overlap. May block. Must not call
 * divvy_manager_stop() or _free() of the same manager (they return WOULD_DEADLOCK), must not throw
 * or call longjmp.
 */
typedef int32_t (*divvy_campaign_fn)(void *userdata,
                                     const char *worker,
                                     int64_t timeout_ms,
                                     int64_t *lease_ms);

/**
 * Releases the leadership of a worker.
 *
 * Parameters: userdata - the value set together with the callback. worker - the worker's id, valid
 * until the callback returns. timeout_ms - time within which to return.
 * Returns: DIVVY_OK (0); anything else is logged and not retried.
 * Thread: "dv-io" of the manager; calls of several threads may overlap. May block.
 */
typedef int32_t (*divvy_resign_fn)(void *userdata, const char *worker, int64_t timeout_ms);

/**
 * Supplies the credentials of one login, at each connect and reconnect. Set them with
 * divvy_credentials_set_token() or divvy_credentials_set_jwt().
 *
 * Parameters: userdata - the value set together with the callback. nonce, nonce_length - the bytes
 * that the server wants signed, valid until the callback returns; length 0: the server accepts no
 * signature. credentials - valid until the callback returns; must not be freed.
 * Returns: DIVVY_OK (0); anything else is a failure: the login fails and is retried.
 * Thread: "dv-nats-io", one call at a time for each store. May block; until it returns, the store is
 * disconnected and stopping it times out. Must not stop or free the store (divvy_store_stop() returns
 * WOULD_DEADLOCK), must not throw or call longjmp.
 */
typedef int32_t (*divvy_credentials_fn)(void *userdata,
                                        const char *nonce,
                                        size_t nonce_length,
                                        struct divvy_credentials credentials);

/**
 * A setting with its properties. A snapshot: later changes of the configuration do not appear in it.
 */
typedef struct divvy_setting {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_setting;

/**
 * A key-value store that a fleet shares. It is closed when it and every calculator and manager
 * created with it have been freed.
 */
typedef struct divvy_store {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_store;

/**
 * A calculator: watches the workers of a fleet, decides when to rebalance, and publishes plans. For
 * hosts with an election of their own: start it when the host leads, stop it when the host no longer
 * leads.
 *
 * All functions may be called from any thread, at the same time, unless they say otherwise. A
 * started calculator has the threads "dv-calc", "dv-watch", "dv-publish", "dv-notify" and, with a
 * partition source, "dv-source".
 * Callbacks of subscribers run on "dv-notify", one at a time, with no lock held.
 */
typedef struct divvy_calculator {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_calculator;

/**
 * An event. Free an event from divvy_events_poll() with divvy_event_free(). An event passed to a
 * callback is valid until the callback returns.
 */
typedef struct divvy_event {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_event;

/**
 * Receives every event.
 *
 * Parameters: userdata - the value set together with the callback. event - valid until the callback
 * returns; must not be freed.
 * Thread: "dv-notify" of the calculator or manager, one call at a time for all its subscribers, in
 * order, with no lock held. A slow callback delays only other callbacks of the same handle. A
 * callback that falls subscriber_backlog events behind receives a last event of kind
 * DIVVY_EVENT_LAGGED. Every function of the library may be called, except that stop and free of the
 * same calculator or manager return WOULD_DEADLOCK. Must not throw or longjmp; an exception that
 * leaves the callback ends the process.
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
 * A manager: one worker's lifecycle. It joins the fleet under a stable id, sends heartbeats, takes
 * part in the election, receives assignments, runs a calculator while it leads, and leaves.
 *
 * All functions may be called from any thread, at the same time, unless they say otherwise. A
 * started manager has the threads "dv-member", "dv-notify" and "dv-io" (several while the store
 * answers slowly); while it leads, also "dv-calc", "dv-watch", "dv-publish" and, with a
 * partition source, "dv-source". Callbacks of
 * subscribers run on "dv-notify", one at a time, with no lock held. Heartbeats do not depend on
 * callbacks or polls.
 */
typedef struct divvy_manager {
    /**
     * Private. 0: none.
     */
    uint64_t id;
} divvy_manager;

/**
 * The assignment of one worker: an immutable snapshot. It has three lists of partitions: owned, and,
 * for an assignment from an event, added and removed.
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
 * Returns the name of a status, such as "DIVVY_TIMED_OUT".
 *
 * Parameters: status - any number.
 * Returns: the name; "unknown" for a number unknown to this library. Never NULL.
 * Ownership: static; never free it.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
const char *divvy_status_name(int32_t status);

/**
 * Returns whether the same call may succeed later without a change by the caller.
 *
 * Parameters: status - any number.
 * Returns: 1 if so, else 0; 0 for a number unknown to this library.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
int32_t divvy_status_is_retriable(int32_t status);

/**
 * Returns a status by index, for generators of bindings.
 *
 * Parameters: index - from 0 on.
 * Returns: the status; 1, which is no status, after the last one.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
int32_t divvy_status_at(size_t index);

/**
 * Returns the version of the loaded library, such as "0.1.0".
 *
 * Returns: the version. Never NULL.
 * Ownership: static; never free it.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
const char *divvy_version(void);

/**
 * Returns the version of the loaded library as major * 1000000 + minor * 1000 + patch.
 *
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
uint32_t divvy_version_number(void);

/**
 * Checks that this library matches the header that the program was compiled with. Call
 * divvy_check_abi(DIVVY_ABI_VERSION) at the start of the program.
 *
 * Parameters: header_version - DIVVY_ABI_VERSION.
 * Returns: OK; ABI_MISMATCH.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
divvy_status divvy_check_abi(uint32_t header_version);

/**
 * Returns the bytes of a text.
 *
 * Parameters: text - the text. length - receives its length in bytes; NULL allowed.
 * Returns: the bytes, followed by a NUL; an empty string for an invalid handle. Never NULL.
 * Ownership: valid until divvy_text_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_text_data(struct divvy_text text, size_t *length);

/**
 * Frees a text.
 *
 * Parameters: text - the text; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also on the second call.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_text_free(struct divvy_text text);

/**
 * Returns the operation that failed, such as "start", or the failing part of it, such as "read".
 *
 * Parameters: errbuf, errlen - the buffer of the failed call, unmodified; NULL allowed. length -
 * receives the length in bytes; NULL allowed.
 * Returns: the operation; an empty string if the call failed before it began one (an invalid
 * argument) or errbuf was too small. Of 256 bytes, half are reserved for operation, key and
 * attempts. Never NULL.
 * Ownership: points into errbuf.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_error_operation(const char *errbuf, size_t errlen, size_t *length);

/**
 * Returns the store key that a failure was about, such as "divvy.fence"; empty if none.
 *
 * Parameters: errbuf, errlen - the buffer of the failed call, unmodified; NULL allowed. length -
 * receives the length in bytes; NULL allowed.
 * Returns: the operation; an empty string if the call failed before it began one (an invalid
 * argument) or errbuf was too small. Of 256 bytes, half are reserved for operation, key and
 * attempts. Never NULL; also empty if the failure was not about a key.
 * Ownership: points into errbuf.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_error_key(const char *errbuf, size_t errlen, size_t *length);

/**
 * Returns the number of failed attempts, the last one included.
 *
 * Parameters: errbuf, errlen - the buffer of the failed call, unmodified; NULL allowed. length -
 * receives the length in bytes; NULL allowed.
 * Returns: the number; 1 without a retry; 0 if divvy_error_operation() is empty.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
uint32_t divvy_error_attempts(const char *errbuf, size_t errlen);

/**
 * Creates a cancellation handle.
 *
 * Parameters: out - receives the handle; not NULL. errbuf, errlen - buffer that receives the error
 * text; NULL allowed.
 * Returns: OK.
 * Ownership: the caller frees it with divvy_cancel_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_cancel_new(struct divvy_cancel *out, char *errbuf, size_t errlen);

/**
 * Selects the cancellation handle for the later calls of this thread. Other threads are not
 * affected. Inside a callback it applies to the callback's thread: reset it with {0} before the
 * callback returns.
 *
 * Parameters: cancel - the handle, fired or not; {0}: none. errbuf, errlen - buffer that receives
 * the error text; NULL allowed.
 * Returns: OK.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_cancel_use(struct divvy_cancel cancel, char *errbuf, size_t errlen);

/**
 * Ends every blocked call of the threads that use the handle, and their later blocking calls. A
 * second call does nothing.
 *
 * Parameters: cancel - the handle. errbuf, errlen - buffer that receives the error text; NULL
 * allowed.
 * Returns: OK.
 * Thread: any. Does not block. Not from a signal handler.
 * Since: 0.1.
 */
divvy_status divvy_cancel_fire(struct divvy_cancel cancel, char *errbuf, size_t errlen);

/**
 * Frees a cancellation handle. Threads that still use it continue as if it had never been fired.
 *
 * Parameters: cancel - the handle; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also on the second call.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_cancel_free(struct divvy_cancel cancel);

/**
 * Sets the error text of the host's callback that is running on this thread. If the callback then
 * returns a failure, the text is the message of the resulting error, log record and event, and part
 * of the status; the returned number is not. The text of an
 * event callback, which returns nothing, is logged. A second call replaces the text.
 *
 * Parameters: message - the text, UTF-8, NUL-terminated, not NULL; copied, truncated to 400
 * characters.
 * errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; NULL_ARGUMENT; BAD_UTF8; TOO_LONG; NOT_RUNNING - no callback of the host is running on this
 * thread.
 * Thread: the one that runs the callback. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_callback_set_error(const char *message,
                                      char *errbuf,
                                      size_t errlen);

/**
 * Returns the number of fields (key=value) of a log record.
 *
 * Parameters: record - the record.
 * Returns: the number; 0 for an invalid handle.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
size_t divvy_log_field_count(struct divvy_log_record record);

/**
 * Returns the name of a field of a log record, such as "version".
 *
 * Parameters: record - the record. index - 0 to divvy_log_field_count() - 1. length - receives the
 * length in bytes; NULL allowed.
 * Returns: the name; an empty string for an invalid handle or index. Never NULL.
 * Ownership: valid until the callback returns.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
const char *divvy_log_field_name(struct divvy_log_record record, size_t index, size_t *length);

/**
 * Returns the value of a field of a log record as text.
 *
 * Parameters: record - the record. index - 0 to divvy_log_field_count() - 1. length - receives the
 * length in bytes; NULL allowed.
 * Returns: the value; an empty string for an invalid handle or index. Never NULL.
 * Ownership: valid until the callback returns.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
const char *divvy_log_field_value(struct divvy_log_record record, size_t index, size_t *length);

/**
 * Returns whether the value of a field of a log record is a decimal number.
 *
 * Parameters: record - the record. index - 0 to divvy_log_field_count() - 1.
 * Returns: 1 or 0; 0 for an invalid handle or index.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
int32_t divvy_log_field_is_number(struct divvy_log_record record, size_t index);

/**
 * Sets the log callback of the process. Until the first call, and with callback NULL, nothing is
 * logged. A second call replaces callback and level.
 *
 * Parameters: max_level - a divvy_log_level; more verbose records are not produced. callback -
 * receives the records; NULL: none. userdata - passed to the callback. destroy - frees userdata when
 * the callback has been replaced and has returned; NULL allowed. errbuf, errlen - buffer that
 * receives the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT - no such level; WOULD_DEADLOCK - called from the callback;
 * UNSUPPORTED - the host is a Rust program with its own logger; TIMED_OUT - the previous callback
 * has not returned within 10 s, or another thread has been in this call for as long. The previous
 * callback is not called again. Its userdata is destroyed after it has returned; the next call waits
 * for that, and nothing is logged until then. On failure, userdata remains with the caller and
 * destroy is not called.
 * Thread: any. Blocks while the previous callback runs, at most 10 s. Records queued before the
 * replacement still reach the previous callback within that time.
 * Since: 0.1.
 */
divvy_status divvy_log_set(int32_t max_level,
                           divvy_log_fn callback,
                           void *userdata,
                           divvy_destroy_fn destroy,
                           char *errbuf,
                           size_t errlen);

/**
 * Sets a token. Replaces what was set before.
 *
 * Parameters: credentials - as the callback received them. token - not NULL; copied. errbuf, errlen -
 * buffer that receives the error text; NULL allowed.
 * Returns: OK; BAD_HANDLE - the callback has returned; BAD_UTF8; TOO_LONG.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_credentials_set_token(struct divvy_credentials credentials,
                                         const char *token,
                                         char *errbuf,
                                         size_t errlen);

/**
 * Sets a user JWT and the signature of the server's nonce. Replaces what was set before.
 *
 * Parameters: credentials - as the callback received them. jwt, jwt_length - the JWT in its text form,
 * not NULL, 1 to 65536 bytes; no NUL is needed; copied. signature, signature_length - the Ed25519
 * signature of the nonce by the user's key, not NULL, 64 bytes, not encoded; copied. errbuf, errlen -
 * buffer that receives the error text; NULL allowed.
 * Returns: OK; BAD_HANDLE - the callback has returned; INVALID_ARGUMENT - no JWT, or the signature has
 * another length; BAD_UTF8; TOO_LONG.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_credentials_set_jwt(struct divvy_credentials credentials,
                                       const char *jwt,
                                       size_t jwt_length,
                                       const char *signature,
                                       size_t signature_length,
                                       char *errbuf,
                                       size_t errlen);

/**
 * Creates a configuration with default settings.
 *
 * Parameters: out - receives the handle; not NULL. errbuf, errlen - buffer that receives the error
 * text; NULL allowed.
 * Returns: OK.
 * Ownership: the caller frees it with divvy_config_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_config_new(struct divvy_config *out, char *errbuf, size_t errlen);

/**
 * Frees a configuration. Calculators, managers and stores created from it are not affected.
 *
 * Parameters: config - the configuration; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also on the second call.
 * Thread: any. Does not block; may run the destroy functions of callbacks set on it.
 * Since: 0.1.
 */
divvy_status divvy_config_free(struct divvy_config config);

/**
 * Sets one setting. A second call replaces the value.
 *
 * Parameters: config - the configuration. key - its name, not NULL. value - its value as text, not
 * NULL. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; INVALID_CONFIG - unknown setting (the detail suggests the nearest name) or invalid
 * value: nothing changes; BAD_UTF8; TOO_LONG.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_config_set(struct divvy_config config,
                              const char *key,
                              const char *value,
                              char *errbuf,
                              size_t errlen);

/**
 * Sets every member of a JSON object: {"cooldown": "5s", "restart_ratio": 0.4}. Values are strings,
 * numbers, booleans or lists of strings; null means the default.
 *
 * Parameters: config - the configuration. json, length - the text, not NULL unless length is 0, and
 * its bytes, at most DIVVY_BYTES_MAX; no NUL is needed. errbuf, errlen - buffer that receives the
 * error text; NULL allowed.
 * Returns: OK; INVALID_CONFIG - not a JSON object, unknown setting or invalid value: nothing
 * changes; BAD_UTF8; TOO_LONG.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_config_merge_json(struct divvy_config config,
                                     const char *json,
                                     size_t length,
                                     char *errbuf,
                                     size_t errlen);

/**
 * Sets settings from environment variables: the prefix and the setting's name in upper case, such as
 * DIVVY_COOLDOWN=5s. An empty variable is ignored. A variable with the prefix that names no setting
 * is ignored and logged as a warning, unless the setting "strict" is true. Variables of the form that
 * Kubernetes injects for a service, such as DIVVY_SERVICE_HOST, are ignored.
 *
 * Parameters: config - the configuration. prefix - prefix of the variables, not empty; NULL:
 * "DIVVY_". errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; INVALID_CONFIG - a variable with the prefix has an invalid value or, with "strict",
 * names an unknown setting: nothing changes; INVALID_ARGUMENT - the prefix is empty; BAD_UTF8;
 * TOO_LONG.
 * Thread: any, while no other thread changes the environment. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_config_merge_env(struct divvy_config config,
                                    const char *prefix,
                                    char *errbuf,
                                    size_t errlen);

/**
 * Returns every setting with its effective value and its origin, as JSON: {"cooldown": {"value":
 * "10s", "origin": "default"}, ...}. Secrets are masked.
 *
 * Parameters: config - the configuration; {0}: the defaults. out - receives the text; not NULL.
 * errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK.
 * Ownership: the caller frees the text with divvy_text_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_config_dump(struct divvy_config config,
                               struct divvy_text *out,
                               char *errbuf,
                               size_t errlen);

/**
 * Sets a callback that lists the partitions. Calculators and leading managers call it at the start,
 * before every rebalance, and in divvy_calculator_refresh() or divvy_manager_refresh_partitions().
 * Without a source, push the list with divvy_calculator_set_partitions() or
 * divvy_manager_set_partitions(). A second call replaces the callback.
 *
 * Parameters: config - the configuration. source - the callback; NULL removes it. userdata - passed
 * to the callback. destroy - frees userdata when the configuration and everything created from it
 * have been freed; NULL allowed. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK. On failure, userdata remains with the caller and destroy is not called.
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
 * Sets a callback that computes plans, instead of the strategy named by the setting "strategy". A
 * second call replaces the callback.
 *
 * Parameters: config - the configuration. name - for logs and status, not NULL. strategy - the
 * callback; NULL removes it. userdata - passed to the callback. destroy - frees userdata when the
 * configuration and everything created from it have been freed; NULL allowed. errbuf, errlen -
 * buffer that receives the error text; NULL allowed.
 * Returns: OK; BAD_UTF8; TOO_LONG. On failure, userdata remains with the caller and destroy is not
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
 * Sets an election of the host, instead of the lease in the store. A second call replaces the
 * callbacks.
 *
 * Parameters: config - the configuration. campaign - acquires or renews the leadership; NULL removes
 * the election. resign - releases it; NULL: nothing to release. userdata - passed to both callbacks.
 * destroy - frees userdata when the configuration and everything created from it have been freed;
 * NULL allowed. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK. On failure, userdata remains with the caller and destroy is not called.
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
 * Sets a callback that supplies the NATS credentials of each login, for credentials that expire or
 * keys that do not leave their keeper. divvy_store_open() uses it if the setting "store" is "nats". A
 * second call replaces the callback.
 *
 * Parameters: config - the configuration, without the settings nats_user, nats_token, nats_creds and
 * nats_nkey_seed. credentials - the callback; NULL removes it. userdata - passed to the callback.
 * destroy - frees userdata when the configuration and every store opened with it have been freed; NULL
 * allowed. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK. On failure, userdata remains with the caller and destroy is not called.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_config_set_credentials(struct divvy_config config,
                                          divvy_credentials_fn credentials,
                                          void *userdata,
                                          divvy_destroy_fn destroy,
                                          char *errbuf,
                                          size_t errlen);

/**
 * Returns the setting at an index. Count from 0 until NOT_FOUND to list all settings.
 *
 * Parameters: config - the configuration that supplies the values; {0}: the defaults. index - 0 or
 * more. out - receives the handle; not NULL. errbuf, errlen - buffer that receives the error text;
 * NULL allowed.
 * Returns: OK; NOT_FOUND - there are fewer settings.
 * Ownership: the caller frees it with divvy_setting_free(); it may outlive the configuration.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_setting_at(struct divvy_config config,
                              size_t index,
                              struct divvy_setting *out,
                              char *errbuf,
                              size_t errlen);

/**
 * Returns a property of a setting.
 *
 * Parameters: setting - the setting. field - a divvy_setting_field. length - receives the length in
 * bytes; NULL allowed.
 * Returns: the text; an empty string for an invalid handle or field. Never NULL.
 * Ownership: valid until divvy_setting_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_setting_text(struct divvy_setting setting, int32_t field, size_t *length);

/**
 * Frees a setting.
 *
 * Parameters: setting - the setting; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also on the second call.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_setting_free(struct divvy_setting setting);

/**
 * Opens the store that the setting "store" names. "nats": connects to NATS, and reconnects until the
 * store is stopped or freed; reads the settings nats_* and *_bucket. With the setting cache_file it
 * waits at most half a second, returns OK even if no server can be reached, and continues to connect
 * in the background. "memory": creates an in-memory store, for tests, demos and fleets within one
 * process.
 *
 * Parameters: config - the configuration; {0}: the defaults. timeout_ms - maximum wait, 0 to
 * DIVVY_TIMEOUT_MAX_MS. out - receives the handle; not NULL. errbuf, errlen - buffer that receives
 * the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT; INVALID_CONFIG - the detail lists every violation; UNAUTHORIZED;
 * UNSUPPORTED - a server without headers or TLS, or a library built without NATS; UNAVAILABLE or
 * TIMED_OUT - no server was reached in time; CANCELLED. After a failure nothing is left running.
 * Ownership: the caller frees it with divvy_store_free().
 * Thread: any. Blocks for at most timeout_ms. The store has threads "dv-nats*"; in memory one thread,
 * "dv-memory", while it is watched.
 * Since: 0.1.
 */
divvy_status divvy_store_open(struct divvy_config config,
                              int64_t timeout_ms,
                              struct divvy_store *out,
                              char *errbuf,
                              size_t errlen);

/**
 * Ends the threads and connections of a store, even while calculators or managers use it; their
 * calls then fail. A second call returns OK at once.
 *
 * Parameters: store - the store. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS. errbuf,
 * errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT; TIMED_OUT - the detail names what is still busy; the handle stays
 * valid, call again; WOULD_DEADLOCK - called by the credentials callback of the store.
 * Thread: any. Blocks for at most timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_store_stop(struct divvy_store store,
                              int64_t timeout_ms,
                              char *errbuf,
                              size_t errlen);

/**
 * Frees a store. Calculators and managers created with it keep it open; the last one closes it.
 *
 * Parameters: store - the store; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also on the second call.
 * Thread: any. Blocks for a few seconds at most, when it closes a store that does not answer.
 * Since: 0.1.
 */
divvy_status divvy_store_free(struct divvy_store store);

/**
 * Creates a bucket unless it exists. An existing bucket keeps its settings. Calculators and managers
 * do this for their buckets.
 *
 * Parameters: store - the store. bucket - a divvy_bucket. ttl_ms - time to live of the values of a
 * new bucket, in milliseconds; 0: unlimited. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS.
 * errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT; NOT_RUNNING; TIMED_OUT; CANCELLED; UNAVAILABLE; UNAUTHORIZED;
 * UNSUPPORTED.
 * Thread: any. Blocks for at most timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_store_ensure(struct divvy_store store,
                                int32_t bucket,
                                int64_t ttl_ms,
                                int64_t timeout_ms,
                                char *errbuf,
                                size_t errlen);

/**
 * Writes a value unconditionally. A worker without a manager sends a heartbeat by writing any value
 * to "heartbeat.<worker>" in the heartbeat bucket before the last one expires.
 *
 * Parameters: store - the store. bucket - a divvy_bucket. key - letters, digits and - / _ = in parts
 * joined by dots, at most 512 bytes, not NULL. value, length - the bytes, NULL if length is 0; at
 * most DIVVY_BYTES_MAX and the limit of the store. timeout_ms - maximum wait, 0 to
 * DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT; BAD_UTF8; TOO_LONG; NOT_RUNNING; TIMED_OUT - it may have been
 * written; CANCELLED - the message says whether it may have been written; UNAVAILABLE; UNAUTHORIZED;
 * TOO_LARGE; STORE_ERROR.
 * Thread: any. Blocks for at most timeout_ms.
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
 * Deletes a value. A worker without a manager leaves by deleting its heartbeat.
 *
 * Parameters: store - the store. bucket - a divvy_bucket. key - letters, digits and - / _ = in parts
 * joined by dots, at most 512 bytes, not NULL. value, length - the bytes, NULL if length is 0; at
 * most DIVVY_BYTES_MAX and the limit of the store. timeout_ms - maximum wait, 0 to
 * DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK, also if there was no value; otherwise as divvy_store_put().
 * Thread: any. Blocks for at most timeout_ms.
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
 * Parameters: store, bucket, key, timeout_ms - as divvy_store_put(). out - receives the value; not
 * NULL. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; NOT_FOUND; INVALID_ARGUMENT; BAD_UTF8; TOO_LONG; NOT_RUNNING; TIMED_OUT; CANCELLED;
 * UNAVAILABLE; UNAUTHORIZED; STORE_ERROR.
 * Ownership: the caller frees the text with divvy_text_free(). The value is not necessarily UTF-8.
 * Thread: any. Blocks for at most timeout_ms.
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
 * Creates an empty list of partitions.
 *
 * Parameters: out - receives the handle; not NULL. errbuf, errlen - buffer that receives the error
 * text; NULL allowed.
 * Returns: OK.
 * Ownership: the caller frees it with divvy_partitions_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_partitions_new(struct divvy_partitions *out, char *errbuf, size_t errlen);

/**
 * Frees a list. Copies of it are not affected.
 *
 * Parameters: partitions - the list; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also on the second call.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_partitions_free(struct divvy_partitions partitions);

/**
 * Appends a partition. Duplicates are detected when the list is used.
 *
 * Parameters: partitions - the list. keys, key_count - the keys, in order, each not NULL; 1 to
 * DIVVY_PARTITION_KEYS_MAX. weight - its relative cost; 0 or less: the setting default_weight.
 * errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT - no key; BAD_UTF8; TOO_LONG.
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
 * Appends every partition of a JSON list: [{"keys": ["tool001", "chamber1"], "weight": 100}, ...].
 * The weight is optional; other members are ignored.
 *
 * Parameters: partitions - the list. json, length - the text, not NULL unless length is 0, and its
 * bytes, at most DIVVY_BYTES_MAX; no NUL is needed. errbuf, errlen - buffer that receives the error
 * text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT - not such a list, nothing is added; BAD_UTF8; TOO_LONG.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_partitions_add_json(struct divvy_partitions partitions,
                                       const char *json,
                                       size_t length,
                                       char *errbuf,
                                       size_t errlen);

/**
 * Returns the number of partitions in a list.
 *
 * Returns: the number; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_partitions_count(struct divvy_partitions partitions);

/**
 * Returns the number of workers.
 *
 * Returns: the number; a status (below 0) for an invalid handle.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
int64_t divvy_plan_input_worker_count(struct divvy_plan_input input);

/**
 * Returns the number of partitions.
 *
 * Returns: the number; a status (below 0) for an invalid handle.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
int64_t divvy_plan_input_partition_count(struct divvy_plan_input input);

/**
 * Returns the number of keys of a partition.
 *
 * Parameters: input - the input. partition - its index.
 * Returns: the number, 0 for an index that is too large; a status (below 0) for an invalid handle.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
int64_t divvy_plan_input_key_count(struct divvy_plan_input input, size_t partition);

/**
 * Returns the id of a worker.
 *
 * Parameters: input - the input. worker - its index. length - receives the id's length in bytes;
 * NULL allowed.
 * Returns: the id; NULL for an invalid handle or an index that is too large.
 * Ownership: valid until the callback returns.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
const char *divvy_plan_input_worker(struct divvy_plan_input input, size_t worker, size_t *length);

/**
 * Returns a key of a partition.
 *
 * Parameters: input - the input. partition - its index. key - the key's index. length - receives the
 * key's length in bytes; NULL allowed.
 * Returns: the key; NULL for an invalid handle or an index that is too large.
 * Ownership: valid until the callback returns.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
const char *divvy_plan_input_key(struct divvy_plan_input input,
                                 size_t partition,
                                 size_t key,
                                 size_t *length);

/**
 * Returns the weight of a partition as set by the host; 0 or less means the default weight.
 *
 * Parameters: input - the input. partition - its index.
 * Returns: the weight; 0 for an invalid handle or an index that is too large.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
int64_t divvy_plan_input_weight(struct divvy_plan_input input, size_t partition);

/**
 * Returns the current owner of a partition.
 *
 * Parameters: input - the input. partition - its index.
 * Returns: the worker's index; DIVVY_NO_WORKER if it has no live owner, and for an invalid handle or
 * an index that is too large.
 * Thread: any, during the callback. Does not block.
 * Since: 0.1.
 */
uint32_t divvy_plan_input_previous(struct divvy_plan_input input,
                                   size_t partition);

/**
 * Returns the name of a state of a calculator, such as "Scaling".
 *
 * Parameters: state - any number.
 * Returns: the name; "unknown" for a number unknown to this library. Never NULL.
 * Ownership: static; never free it.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
const char *divvy_calculator_state_name(int32_t state);

/**
 * Returns the name of a reason as stored in assignments, such as "planned_scale"; "" for none.
 *
 * Parameters: state - any number.
 * Returns: the name; "unknown" for a number unknown to this library. Never NULL.
 * Ownership: static; never free it.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
const char *divvy_reason_name(int32_t reason);

/**
 * Returns the name of a membership change, such as "joined"; "" for none.
 *
 * Parameters: state - any number.
 * Returns: the name; "unknown" for a number unknown to this library. Never NULL.
 * Ownership: static; never free it.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
const char *divvy_member_change_name(int32_t change);

/**
 * Returns the name of a manager state, such as "Stable".
 *
 * Parameters: state - any number.
 * Returns: the name; "unknown" for a number unknown to this library. Never NULL.
 * Ownership: static; never free it.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
const char *divvy_manager_state_name(int32_t state);

/**
 * Returns the name of an alert level, such as "warning"; "" for none.
 *
 * Parameters: state - any number.
 * Returns: the name; "unknown" for a number unknown to this library. Never NULL.
 * Ownership: static; never free it.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
const char *divvy_alert_level_name(int32_t level);

/**
 * Returns the name of a kind of event, such as "published".
 *
 * Parameters: kind - any number.
 * Returns: the name; "unknown" for a number unknown to this library. Never NULL.
 * Ownership: static; never free it.
 * Thread: any. Does not block. Works in a forked child.
 * Since: 0.1.
 */
const char *divvy_event_kind_name(int32_t kind);

/**
 * Creates a calculator.
 *
 * Parameters: config - the configuration, copied; {0}: defaults. store - the store, shared; may be
 * freed afterwards. out - receives the handle; not NULL. errbuf, errlen - buffer that receives the
 * error text; NULL allowed.
 * Returns: OK; INVALID_CONFIG - the detail lists every violation.
 * Ownership: the caller frees it with divvy_calculator_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_calculator_new(struct divvy_config config,
                                  struct divvy_store store,
                                  struct divvy_calculator *out,
                                  char *errbuf,
                                  size_t errlen);

/**
 * Starts a calculator: connects to the store, takes over from a previous leader, reads the stored
 * plan and the live workers, and begins to publish. What may pass is retried until the timeout.
 * After a stop it may be called again.
 *
 * Parameters: calculator - the calculator. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS.
 * errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; ALREADY_STARTED, also on a second call; INVALID_ARGUMENT; NOT_RUNNING - stopped in
 * the meantime; CANCELLED; TIMED_OUT; UNAVAILABLE; UNAUTHORIZED; UNSUPPORTED - the assignment bucket
 * has a TTL; CONFLICT - another leader takes over at the same time; INVALID_DATA - a stored number
 * is too large. After a failure nothing is left running and subscriptions remain, unless a callback
 * of the host does not return: then the detail says so, and stop waits for it.
 * Thread: any. Blocks for at most timeout_ms, plus 1 s for cleanup after a failure.
 * Since: 0.1.
 */
divvy_status divvy_calculator_start(struct divvy_calculator calculator,
                                    int64_t timeout_ms,
                                    char *errbuf,
                                    size_t errlen);

/**
 * Stops a calculator: publishes nothing more and joins all threads. Subscribers receive the events
 * in their backlog (callbacks for at most half of the timeout) and then end. After OK, no callback
 * of this calculator runs. If it is not started, ends its subscriptions and returns OK; so does a
 * second call.
 *
 * Parameters: calculator - the calculator. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS.
 * errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT; WOULD_DEADLOCK - called inside a callback of this calculator;
 * TIMED_OUT - the detail names the busy threads: no further callback starts, nothing more is
 * published, the handle stays valid, call again; CANCELLED - likewise, but callbacks continue until
 * the next call.
 * Thread: any. Blocks for at most timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_calculator_stop(struct divvy_calculator calculator,
                                   int64_t timeout_ms,
                                   char *errbuf,
                                   size_t errlen);

/**
 * Frees a calculator. A started calculator is stopped first, with a timeout of 10 s. Concurrent
 * calls in other threads end safely; later calls return BAD_HANDLE.
 *
 * Parameters: calculator - the calculator; {0} is allowed and does nothing. errbuf, errlen - buffer
 * that receives the error text; NULL allowed.
 * Returns: OK; BAD_HANDLE, also on the second call; WOULD_DEADLOCK and TIMED_OUT as
 * divvy_calculator_stop(), and CANCELLED: nothing is freed, the handle stays valid.
 * Thread: any. Blocks for at most 10 s when it is started.
 * Since: 0.1.
 */
divvy_status divvy_calculator_free(struct divvy_calculator calculator, char *errbuf, size_t errlen);

/**
 * Returns whether a calculator is running.
 *
 * Returns: 1 or 0; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_calculator_is_started(struct divvy_calculator calculator);

/**
 * Returns the state of a calculator; DIVVY_CALCULATOR_IDLE if it is not started.
 *
 * Returns: a divvy_calculator_state; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_calculator_get_state(struct divvy_calculator calculator);

/**
 * Returns the reason of the current state of a calculator.
 *
 * Returns: a divvy_reason, DIVVY_REASON_NONE when it is idle; a status (below 0) for an invalid
 * handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_calculator_scaling_reason(struct divvy_calculator calculator);

/**
 * Returns the version last published or adopted.
 *
 * Returns: the version, 0 when there is none; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_calculator_current_version(struct divvy_calculator calculator);

/**
 * Publishes a new version, at once or after a publication in progress, and waits for it. Ignores
 * cooldown and windows.
 *
 * Parameters: calculator - the calculator. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS.
 * version - receives the new version; NULL allowed. errbuf, errlen - buffer that receives the error
 * text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT; NOT_RUNNING; WOULD_DEADLOCK - called from a partition source or a
 * strategy; TIMED_OUT - the rebalance stays pending, the detail contains the last failure;
 * CANCELLED - the rebalance stays pending; NO_WORKERS; FENCED; permanent errors of the store.
 * Thread: any, callbacks of subscribers included. Blocks for at most timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_calculator_trigger_rebalance(struct divvy_calculator calculator,
                                                int64_t timeout_ms,
                                                int64_t *version,
                                                char *errbuf,
                                                size_t errlen);

/**
 * Reads the partition source, compares the list with the published plan, and waits for that. A
 * difference becomes pending work.
 *
 * Parameters: calculator - the calculator. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS.
 * version - receives the version in force; NULL allowed. errbuf, errlen - buffer that receives the
 * error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT; NOT_RUNNING; WOULD_DEADLOCK - called from a partition source or a
 * strategy; TIMED_OUT - the rebalance stays pending, the detail contains the last failure;
 * CANCELLED - the rebalance stays pending; NO_WORKERS; FENCED; permanent errors of the store;
 * SOURCE_FAILED.
 * Thread: any, callbacks of subscribers included. Blocks for at most timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_calculator_refresh(struct divvy_calculator calculator,
                                      int64_t timeout_ms,
                                      int64_t *version,
                                      char *errbuf,
                                      size_t errlen);

/**
 * Confirms the partition list as it is now, although it lost more than the setting max_list_shrink
 * allows: reads it again as divvy_calculator_refresh() does, and applies it. Counts once.
 *
 * Parameters: calculator - the calculator. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS. version -
 * receives the version in force; NULL allowed. errbuf, errlen - buffer that receives the error text;
 * NULL allowed.
 * Returns: as divvy_calculator_refresh().
 * Thread: any, callbacks of subscribers included. Blocks for at most timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_calculator_confirm_partitions(struct divvy_calculator calculator,
                                                 int64_t timeout_ms,
                                                 int64_t *version,
                                                 char *errbuf,
                                                 size_t errlen);

/**
 * Sets the whole partition list. May be called before the start. The list survives stop and start.
 * Nothing is published without a list.
 *
 * Parameters: calculator - the calculator. partitions - the list, copied; an empty list releases
 * everything. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT - a partition occurs twice, or the calculator reads its partitions
 * from a callback; TIMED_OUT - the list is stored, but the calculator is too busy to process it:
 * call divvy_calculator_refresh().
 * Thread: any. Blocks for at most 1 s while the calculator is overloaded.
 * Since: 0.1.
 */
divvy_status divvy_calculator_set_partitions(struct divvy_calculator calculator,
                                             struct divvy_partitions partitions,
                                             char *errbuf,
                                             size_t errlen);

/**
 * Returns the status of a calculator as JSON, for people and dashboards: state, reason, version,
 * term, workers with the rest of their leases and their lag, pending work, degradations, counters.
 * Later releases may add members.
 *
 * Parameters: calculator - the calculator. out - receives the text; not NULL. errbuf, errlen -
 * buffer that receives the error text; NULL allowed.
 * Returns: OK.
 * Ownership: the caller frees the text with divvy_text_free().
 * Thread: any. Blocks for at most 2 s when the calculator's threads are busy; what they do not
 * answer in time is left empty.
 * Since: 0.1.
 */
divvy_status divvy_calculator_status_json(struct divvy_calculator calculator,
                                          struct divvy_text *out,
                                          char *errbuf,
                                          size_t errlen);

/**
 * Returns the metrics of a calculator in the Prometheus text format 0.0.4. Every line is terminated,
 * so that metrics of the host may follow on the same page. The settings "metrics_namespace" and
 * "metrics_labels" set names and labels. Pages of several handles need different labels. Counters
 * survive stop and start.
 *
 * Parameters: calculator - the calculator. out - receives the text; not NULL. errbuf, errlen -
 * buffer that receives the error text; NULL allowed.
 * Returns: OK.
 * Ownership: the caller frees the text with divvy_text_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_calculator_metrics(struct divvy_calculator calculator,
                                      struct divvy_text *out,
                                      char *errbuf,
                                      size_t errlen);

/**
 * Subscribes a callback. It receives the current state first and then every event, in order, without
 * gaps or duplicates, until the subscription is freed or the calculator stops. May be called before
 * the start. Each call creates another subscription.
 *
 * Parameters: calculator - the calculator. filter - a divvy_event_filter. callback - receives the
 * events; not NULL. userdata - passed to the callback. destroy - frees userdata after the last
 * callback, before divvy_subscription_free() or divvy_calculator_stop() return OK; NULL allowed.
 * out - receives the handle, before the first callback; not NULL. errbuf, errlen - buffer that
 * receives the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT - no such filter. On failure, userdata remains with the caller and
 * destroy is not called.
 * Ownership: the caller ends and frees the subscription with divvy_subscription_free().
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
 * Opens an event queue for divvy_events_poll(). It delivers the current state first and then every
 * event, in order, without gaps or duplicates, until it is freed or the calculator stops. Each call
 * creates another queue.
 *
 * Parameters: calculator - the calculator. filter - a divvy_event_filter. out - receives the handle;
 * not NULL. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT - no such filter.
 * Ownership: the caller frees it with divvy_events_free(); it may outlive the calculator.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_calculator_events(struct divvy_calculator calculator,
                                     int32_t filter,
                                     struct divvy_events *out,
                                     char *errbuf,
                                     size_t errlen);

/**
 * Creates a manager.
 *
 * Parameters: config - the configuration, copied; {0}: defaults. Use the same configuration in all
 * workers of a fleet. store - the store, shared; may be freed afterwards. out - receives the handle;
 * not NULL. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; INVALID_CONFIG - the detail lists every violation. A manager also rejects windows and
 * graces for which a calculator only warns.
 * Ownership: the caller frees it with divvy_manager_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_manager_new(struct divvy_config config,
                               struct divvy_store store,
                               struct divvy_manager *out,
                               char *errbuf,
                               size_t errlen);

/**
 * Starts a manager: creates missing buckets, claims an id, and returns once the first heartbeat is
 * stored. Election and assignment follow; wait for them with divvy_manager_wait_state(). What may
 * pass is tried again until the timeout. After a stop it may be called again. With the setting
 * cache_file it also returns after the first failure of the store, with the assignment in the file:
 * state degraded, the previous id and partitions, lifecycle "cached". Joining continues in the
 * background.
 *
 * Parameters: manager - the manager. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS. errbuf,
 * errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; ALREADY_STARTED, also on a second call; INVALID_ARGUMENT; NOT_RUNNING - stopped in
 * the meantime; CANCELLED; IDS_EXHAUSTED - no id became free; TIMED_OUT - the detail contains the
 * last failure; UNAUTHORIZED; UNSUPPORTED - the TTL of a bucket does not fit. After a failure
 * nothing is left running and subscriptions remain.
 * Thread: any. Blocks for at most timeout_ms, plus 1 s for cleanup after a failure.
 * Since: 0.1.
 */
divvy_status divvy_manager_start(struct divvy_manager manager,
                                 int64_t timeout_ms,
                                 char *errbuf,
                                 size_t errlen);

/**
 * Leaves the fleet and joins all threads. The calculator stops first; then heartbeat and leadership
 * are released, and last the id. Subscribers receive the events in their backlog and then end. The
 * worker then owns nothing. After OK, no callback of this manager runs. If it is not started, ends
 * its subscriptions and returns OK; so does a second call.
 *
 * Parameters: manager - the manager. departure - a divvy_departure. timeout_ms - maximum wait, 0 to
 * DIVVY_TIMEOUT_MAX_MS; if the store has not confirmed after three quarters of it, the remaining
 * keys are left to expire. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT; WOULD_DEADLOCK - called inside a callback of this manager;
 * TIMED_OUT - the detail names the busy threads: the handle stays valid, call again; CANCELLED - the
 * worker continues to leave in the background; call again to wait for it.
 * Thread: any. Blocks for at most timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_manager_stop(struct divvy_manager manager,
                                int32_t departure,
                                int64_t timeout_ms,
                                char *errbuf,
                                size_t errlen);

/**
 * Frees a manager. A started manager is stopped first, with DIVVY_DEPARTURE_LEAVE and a timeout of
 * 10 s. Concurrent calls in other threads end safely; later calls return BAD_HANDLE.
 *
 * Parameters: manager - the manager; {0} is allowed and does nothing. errbuf, errlen - buffer that
 * receives the error text; NULL allowed.
 * Returns: OK; BAD_HANDLE, also on the second call; WOULD_DEADLOCK and TIMED_OUT as
 * divvy_manager_stop(), and CANCELLED: nothing is freed, the handle stays valid.
 * Thread: any. Blocks for at most 10 s when it is started.
 * Since: 0.1.
 */
divvy_status divvy_manager_free(struct divvy_manager manager, char *errbuf, size_t errlen);

/**
 * Returns whether a manager is running: from a successful divvy_manager_start() until a stop is
 * requested or one of its threads panics.
 *
 * Returns: 1 or 0; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_manager_is_started(struct divvy_manager manager);

/**
 * Returns whether the library works, for liveness probes: 1 from the begin of divvy_manager_start()
 * until the end of divvy_manager_stop(), unless a thread of the manager has panicked or has made no
 * progress for 10 s. Outages of the store, a lost id and hanging host code do not matter.
 *
 * Returns: 1 or 0; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_manager_is_live(struct divvy_manager manager);

/**
 * Returns whether the worker serves an assignment, for readiness probes: 1 from its first applied
 * assignment, which may be empty or cached, until a stop is requested, its id is lost or, with the
 * setting outage_policy strict, its ownership ends. Stays 1 while the worker leads and its calculator
 * scales or rebalances, and in degraded mode with outage_policy serve.
 *
 * Returns: 1 or 0; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_manager_is_ready(struct divvy_manager manager);

/**
 * Returns whether the worker leads.
 *
 * Returns: 1 or 0; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_manager_is_leader(struct divvy_manager manager);

/**
 * Returns the state of a manager.
 *
 * Returns: a divvy_manager_state; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_manager_get_state(struct divvy_manager manager);

/**
 * Waits until a manager is in a state. A state that it left before the call, or very quickly, is not
 * detected: subscribe to observe every state.
 *
 * Parameters: manager - the manager. state - a divvy_manager_state. timeout_ms - maximum wait, 0 to
 * DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT; NOT_RUNNING - the manager was stopped, or is stopped during the
 * wait; TIMED_OUT - the detail names the current state; CANCELLED; PANICKED.
 * Thread: any. Blocks for at most timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_manager_wait_state(struct divvy_manager manager,
                                      int32_t state,
                                      int64_t timeout_ms,
                                      char *errbuf,
                                      size_t errlen);

/**
 * Returns the id of the worker.
 *
 * Parameters: manager - the manager. out - receives the text; not NULL. errbuf, errlen - buffer that
 * receives the error text; NULL allowed.
 * Returns: OK; NOT_FOUND - the worker has no id: it has not claimed one yet, or lost it.
 * Ownership: the caller frees the text with divvy_text_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_manager_worker_id(struct divvy_manager manager,
                                     struct divvy_text *out,
                                     char *errbuf,
                                     size_t errlen);

/**
 * Returns the id of the last known leader.
 *
 * Parameters: manager - the manager. out - receives the worker's id; not NULL. errbuf, errlen -
 * buffer that receives the error text; NULL allowed.
 * Returns: OK; NOT_FOUND - no leader is known.
 * Ownership: the caller frees the text with divvy_text_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_manager_leader(struct divvy_manager manager,
                                  struct divvy_text *out,
                                  char *errbuf,
                                  size_t errlen);

/**
 * Returns the current assignment of the worker; empty, with version 0, before the first one.
 *
 * Parameters: manager - the manager. out - receives the handle; not NULL. errbuf, errlen - buffer
 * that receives the error text; NULL allowed.
 * Returns: OK.
 * Ownership: the caller frees the assignment with divvy_assignment_free(); it may outlive the
 * manager.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_manager_assignment(struct divvy_manager manager,
                                      struct divvy_assignment *out,
                                      char *errbuf,
                                      size_t errlen);

/**
 * If this worker is the leader, reads the partition source and publishes any change.
 *
 * Parameters: manager - the manager. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS. version -
 * receives the version in force; NULL allowed. errbuf, errlen - buffer that receives the error text;
 * NULL allowed.
 * Returns: OK; NOT_LEADER - the detail names the leader; otherwise as divvy_calculator_refresh().
 * Thread: any, callbacks of subscribers included. Blocks for at most timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_manager_refresh_partitions(struct divvy_manager manager,
                                              int64_t timeout_ms,
                                              int64_t *version,
                                              char *errbuf,
                                              size_t errlen);

/**
 * Confirms the partition list as it is now, although it lost more than the setting max_list_shrink
 * allows, if this worker is the leader.
 *
 * Parameters: manager - the manager. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS. version -
 * receives the version in force; NULL allowed. errbuf, errlen - buffer that receives the error text;
 * NULL allowed.
 * Returns: OK; NOT_LEADER - the detail names the leader; otherwise as divvy_calculator_refresh().
 * Thread: any, callbacks of subscribers included. Blocks for at most timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_manager_confirm_partitions(struct divvy_manager manager,
                                              int64_t timeout_ms,
                                              int64_t *version,
                                              char *errbuf,
                                              size_t errlen);

/**
 * If this worker is the leader, publishes a new version at once.
 *
 * Parameters: manager - the manager. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS. version -
 * receives the new version; NULL allowed. errbuf, errlen - buffer that receives the error text; NULL
 * allowed.
 * Returns: OK; NOT_LEADER - the detail names the leader; otherwise as
 * divvy_calculator_trigger_rebalance().
 * Thread: any, callbacks of subscribers included. Blocks for at most timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_manager_trigger_rebalance(struct divvy_manager manager,
                                             int64_t timeout_ms,
                                             int64_t *version,
                                             char *errbuf,
                                             size_t errlen);

/**
 * Sets the whole partition list. Every worker that may lead needs it. May be called before the
 * start. The list survives stop and start.
 *
 * Parameters: manager - the manager. partitions - the list, copied; an empty list releases
 * everything. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT - a partition occurs twice, or the manager reads its partitions from
 * a callback; TIMED_OUT - the list is stored, but the calculator is too busy to process it: call
 * divvy_manager_refresh_partitions().
 * Thread: any. Blocks for at most 1 s while the calculator is overloaded.
 * Since: 0.1.
 */
divvy_status divvy_manager_set_partitions(struct divvy_manager manager,
                                          struct divvy_partitions partitions,
                                          char *errbuf,
                                          size_t errlen);

/**
 * Returns the status of a manager as JSON, for people and dashboards: state, id, leader, version,
 * term, number of partitions, degradations, and the status of its calculator while it leads. Later
 * releases may add members.
 *
 * Parameters: manager - the manager. out - receives the text; not NULL. errbuf, errlen - buffer that
 * receives the error text; NULL allowed.
 * Returns: OK.
 * Ownership: the caller frees the text with divvy_text_free().
 * Thread: any. Blocks for at most 3 s when the manager's threads are busy; what they do not answer
 * in time is left empty.
 * Since: 0.1.
 */
divvy_status divvy_manager_status_json(struct divvy_manager manager,
                                       struct divvy_text *out,
                                       char *errbuf,
                                       size_t errlen);

/**
 * Returns the metrics of a manager, its worker, its store and its calculators in the Prometheus text
 * format 0.0.4. Pages of several handles need different labels (setting "metrics_labels"). Counters
 * survive stop, start and changes of leadership.
 *
 * Parameters: manager - the manager. out - receives the text; not NULL. errbuf, errlen - buffer that
 * receives the error text; NULL allowed.
 * Returns: OK.
 * Ownership: the caller frees the text with divvy_text_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_manager_metrics(struct divvy_manager manager,
                                   struct divvy_text *out,
                                   char *errbuf,
                                   size_t errlen);

/**
 * Subscribes a callback. It receives the current state, id, leader and assignment (each if present)
 * first and then every event, in order, without gaps or duplicates, until the subscription is freed
 * or the manager stops. May be called before the start. Each call creates another subscription.
 *
 * Parameters: manager - the manager. filter - a divvy_manager_event_filter. callback - receives the
 * events; not NULL. userdata - passed to the callback. destroy - frees userdata after the last
 * callback, before divvy_subscription_free() or divvy_manager_stop() return OK; NULL allowed. out -
 * receives the handle, before the first callback; not NULL. errbuf, errlen - buffer that receives
 * the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT - no such filter. On failure, userdata remains with the caller and
 * destroy is not called.
 * Ownership: the caller ends and frees the subscription with divvy_subscription_free().
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
 * Opens an event queue for divvy_events_poll(). It delivers the current state, id, leader and
 * assignment first and then every event, in order, without gaps or duplicates, until it is freed or
 * the manager stops. Each call creates another queue.
 *
 * Parameters: manager - the manager. filter - a divvy_manager_event_filter. out - receives the
 * handle; not NULL. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT - no such filter.
 * Ownership: the caller frees it with divvy_events_free(); it may outlive the manager.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_manager_events(struct divvy_manager manager,
                                  int32_t filter,
                                  struct divvy_events *out,
                                  char *errbuf,
                                  size_t errlen);

/**
 * Returns the version of the plan that an assignment belongs to.
 *
 * Parameters: assignment - the assignment.
 * Returns: the version, 0 before the first one; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_assignment_version(struct divvy_assignment assignment);

/**
 * Returns the term in which an assignment was published.
 *
 * Parameters: assignment - the assignment.
 * Returns: the term, 0 when a leader without terms (parti) wrote it; a status (below 0) for an
 * invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_assignment_term(struct divvy_assignment assignment);

/**
 * Returns the reason of the plan as the leader wrote it, such as "planned_scale"; "cached" for an
 * assignment from the cache file that the store has not confirmed: other workers may own the
 * partitions too.
 *
 * Parameters: assignment - the assignment. length - receives the length in bytes; NULL allowed.
 * Returns: the reason; an empty string before the first assignment and for an invalid handle. Never
 * NULL.
 * Ownership: valid until divvy_assignment_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_assignment_lifecycle(struct divvy_assignment assignment, size_t *length);

/**
 * Returns an assignment as a JSON object: {"version": 42, "term": 3, "lifecycle": "planned_scale",
 * "partitions": [{"keys": ["tool001"], "weight": 100}, ...], "added": [...], "removed": [...]}.
 * Later releases may add members.
 *
 * Parameters: assignment - the assignment. length - receives the length in bytes; NULL allowed.
 * Ownership: valid until divvy_assignment_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 * Returns: the text, an empty one for an invalid handle. Never NULL.
 */
const char *divvy_assignment_json(struct divvy_assignment assignment, size_t *length);

/**
 * Returns the number of partitions in a list.
 *
 * Parameters: assignment - the assignment. list - a divvy_assignment_list.
 * Returns: the number; a status (below 0): INVALID_ARGUMENT - no such list; for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_assignment_count(struct divvy_assignment assignment, int32_t list);

/**
 * Returns the number of keys of a partition.
 *
 * Parameters: assignment - the assignment. list - a divvy_assignment_list. partition - its index
 * there.
 * Returns: the number, 0 for an index that is too large; a status (below 0) as
 * divvy_assignment_count().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_assignment_key_count(struct divvy_assignment assignment,
                                   int32_t list,
                                   size_t partition);

/**
 * Returns a key of a partition.
 *
 * Parameters: assignment - the assignment. list - a divvy_assignment_list. partition - its index
 * there. key - the key's index. length - receives the key's length in bytes; NULL allowed.
 * Returns: the key; NULL for an invalid handle, list or index.
 * Ownership: valid until divvy_assignment_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_assignment_key(struct divvy_assignment assignment,
                                 int32_t list,
                                 size_t partition,
                                 size_t key,
                                 size_t *length);

/**
 * Returns the weight of a partition as assigned; 0 or less means the default weight.
 *
 * Parameters: assignment - the assignment. list - a divvy_assignment_list. partition - its index
 * there.
 * Returns: the weight; 0 for an invalid handle, list or index.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_assignment_weight(struct divvy_assignment assignment, int32_t list, size_t partition);

/**
 * Frees an assignment.
 *
 * Parameters: assignment - the assignment; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also on the second call.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_assignment_free(struct divvy_assignment assignment);

/**
 * Ends and frees a subscription. After OK the callback does not run and will not run, and its
 * userdata has been destroyed. Inside a callback of the same calculator or manager the call does not
 * wait for that callback: userdata is then destroyed after its return. Inside a callback of another
 * one it waits as everywhere else.
 *
 * Parameters: subscription - the subscription; {0} is allowed and does nothing. timeout_ms - maximum
 * wait for a running callback, 0 to DIVVY_TIMEOUT_MAX_MS. errbuf, errlen - buffer that receives the
 * error text; NULL allowed.
 * Returns: OK; BAD_HANDLE, also on the second call; INVALID_ARGUMENT; TIMED_OUT - the callback is
 * still running. It will not be called again. The handle stays valid: call again. Two callbacks that
 * each unsubscribe the other one end in this way.
 * Thread: any, several at a time: each waits. Blocks for at most timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_subscription_free(struct divvy_subscription subscription,
                                     int64_t timeout_ms,
                                     char *errbuf,
                                     size_t errlen);

/**
 * Returns the next event of a queue and waits for it if necessary.
 *
 * Parameters: events - the queue. timeout_ms - maximum wait, 0 to DIVVY_TIMEOUT_MAX_MS; -1: without
 * limit. out - receives the event; not NULL. errbuf, errlen - buffer that receives the error text;
 * NULL allowed.
 * Returns: OK; TIMED_OUT - no event in time; WOKEN - divvy_events_wake() was called; CLOSED - no
 * further event: all have been read, and the handle was stopped, freed or has failed, or this queue
 * lagged or was freed; INVALID_ARGUMENT.
 * Ownership: the event is the caller's, freed with divvy_event_free().
 * Thread: any; with several readers, each event goes to one of them. Blocks for at most timeout_ms.
 * Since: 0.1.
 */
divvy_status divvy_events_poll(struct divvy_events events,
                               int64_t timeout_ms,
                               struct divvy_event *out,
                               char *errbuf,
                               size_t errlen);

/**
 * Ends every blocked divvy_events_poll() of this queue with WOKEN; if none is blocked, the next call
 * that would block returns at once.
 *
 * Parameters: events - the queue. errbuf, errlen - buffer that receives the error text; NULL
 * allowed.
 * Returns: OK.
 * Thread: any. Does not block. Not from a signal handler.
 * Since: 0.1.
 */
divvy_status divvy_events_wake(struct divvy_events events,
                               char *errbuf,
                               size_t errlen);

/**
 * Returns a file descriptor for event loops. It is readable exactly while divvy_events_poll() with a
 * timeout of 0 would not return TIMED_OUT. Wait for it level-triggered, then poll with 0 until
 * TIMED_OUT. A second call returns the same descriptor.
 *
 * Parameters: events - the queue. fd - receives the descriptor; not NULL. errbuf, errlen - buffer
 * that receives the error text; NULL allowed.
 * Returns: OK; UNAVAILABLE - no free descriptor; UNSUPPORTED - not on this platform.
 * Ownership: the library owns it and closes it with the queue. Do not read or close it. Remove it
 * from the event loop before divvy_events_free().
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_events_fd(struct divvy_events events,
                             int *fd,
                             char *errbuf,
                             size_t errlen);

/**
 * Reports that the host failed to process an event of a queue. The text is logged as that of a failed
 * event callback is, see divvy_callback_set_error().
 *
 * Parameters: events - the queue. message - the text, UTF-8, NUL-terminated, not NULL; truncated to
 * 400 characters. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; BAD_UTF8; TOO_LONG.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_events_report_error(struct divvy_events events,
                                       const char *message,
                                       char *errbuf,
                                       size_t errlen);

/**
 * Frees a queue. Blocked polls of other threads return CLOSED.
 *
 * Parameters: events - the queue; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also on the second call.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_events_free(struct divvy_events events);

/**
 * Returns the kind of an event.
 *
 * Parameters: event - the event.
 * Returns: a divvy_event_kind; a status (below 0) for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_get_kind(struct divvy_event event);

/**
 * Returns the new state.
 *
 * Parameters: event - the event.
 * Returns: a divvy_calculator_state; of DIVVY_EVENT_MANAGER_STATE a divvy_manager_state, of
 * DIVVY_EVENT_BREAKER a divvy_breaker_state; 0 for other kinds of events and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_state(struct divvy_event event);

/**
 * Returns the previous state.
 *
 * Parameters: event - the event.
 * Returns: a divvy_calculator_state, of DIVVY_EVENT_MANAGER_STATE a divvy_manager_state; 0 for other
 * kinds of events and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_from_state(struct divvy_event event);

/**
 * Returns the reason of the plan.
 *
 * Parameters: event - the event.
 * Returns: a divvy_reason; DIVVY_REASON_NONE for other kinds of events, for a change to
 * DIVVY_CALCULATOR_IDLE, and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_reason(struct divvy_event event);

/**
 * Returns the version: of the published plan, of the last plan at a change of state, of the
 * assignment, or the version assigned to a lagging worker.
 *
 * Parameters: event - the event.
 * Returns: the version; 0 when there is none, for other kinds of events, and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_event_version(struct divvy_event event);

/**
 * Returns the version that a lagging worker has applied.
 *
 * Parameters: event - the event.
 * Returns: the version; 0 when it has applied none, for other kinds of events, and for an invalid
 * handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int64_t divvy_event_applied_version(struct divvy_event event);

/**
 * Returns the time of the state change, or since when the calculator has been degraded, in
 * nanoseconds of the clock that continues during system sleep (CLOCK_BOOTTIME on Linux,
 * CLOCK_MONOTONIC elsewhere).
 *
 * Parameters: event - the event.
 * Returns: the time; 0 for other kinds of events, for the end of a degradation, and for an invalid
 * handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
uint64_t divvy_event_time_ns(struct divvy_event event);

/**
 * Returns the membership change.
 *
 * Parameters: event - the event.
 * Returns: a divvy_member_change; DIVVY_MEMBER_NONE for other kinds of events and for an invalid
 * handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_member_change(struct divvy_event event);

/**
 * Returns the number of workers in the published plan.
 *
 * Parameters: event - the event.
 * Returns: the number; 0 for other kinds of events and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
uint64_t divvy_event_worker_count(struct divvy_event event);

/**
 * Returns the number of partitions in the published plan; of DIVVY_EVENT_ASSIGNMENT_LIMIT those
 * without an owner, which divvy_event_json() lists.
 *
 * Parameters: event - the event.
 * Returns: the number; 0 for other kinds of events and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
uint64_t divvy_event_partition_count(struct divvy_event event);

/**
 * Returns the number of partitions that changed owners with the published plan.
 *
 * Parameters: event - the event.
 * Returns: the number; 0 for other kinds of events and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
uint64_t divvy_event_moved_count(struct divvy_event event);

/**
 * Returns the number of events that a slow subscriber missed.
 *
 * Parameters: event - the event.
 * Returns: the number; 0 for other kinds of events and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
uint64_t divvy_event_missed_count(struct divvy_event event);

/**
 * Returns the status of a failure.
 *
 * Parameters: event - the event.
 * Returns: a divvy_status; 0 for other kinds of events and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_status(struct divvy_event event);

/**
 * Returns the worker of an event about membership, lag or ids.
 *
 * Parameters: event - the event. length - receives the length in bytes; NULL allowed.
 * Returns: the worker's id; an empty string for other kinds of events and for an invalid handle.
 * Never NULL.
 * Ownership: valid until the event is freed, or the callback that received it returns.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_event_worker(struct divvy_event event, size_t *length);

/**
 * Returns the text of an event, for people.
 *
 * Parameters: event - the event. length - receives the length in bytes; NULL allowed.
 * Returns: the worker's id; an empty string for other kinds of events and for an invalid handle.
 * Never NULL.
 * Ownership: valid until the event is freed, or the callback that received it returns.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_event_message(struct divvy_event event, size_t *length);

/**
 * Returns the operation that failed, such as "publish", or the failing part of it.
 *
 * Parameters: event - the event. length - receives the length in bytes; NULL allowed.
 * Returns: the worker's id; an empty string for other kinds of events and for an invalid handle.
 * Never NULL.
 * Ownership: valid until the event is freed, or the callback that received it returns.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_event_operation(struct divvy_event event, size_t *length);

/**
 * Returns the store key that a failure or a malformed value was about; empty if none.
 *
 * Parameters: event - the event. length - receives the length in bytes; NULL allowed.
 * Returns: the worker's id; an empty string for other kinds of events and for an invalid handle.
 * Never NULL.
 * Ownership: valid until the event is freed, or the callback that received it returns.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_event_key(struct divvy_event event, size_t *length);

/**
 * Returns the bucket that holds a malformed value.
 *
 * Parameters: event - the event, of kind DIVVY_EVENT_MALFORMED.
 * Returns: a divvy_bucket; 0 for other kinds of events and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_bucket(struct divvy_event event);

/**
 * Returns how a malformed value begins, with control characters escaped.
 *
 * Parameters: event - the event, of kind DIVVY_EVENT_MALFORMED. length - receives the length in
 * bytes; NULL allowed.
 * Returns: the text; an empty string for other kinds of events and for an invalid handle. Never
 * NULL.
 * Ownership: valid until the event is freed, or the callback that received it returns.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_event_value(struct divvy_event event, size_t *length);

/**
 * Returns the number of failed attempts, the last one included.
 *
 * Parameters: event - the event.
 * Returns: the number; 1 without a retry; 0 for other kinds of events and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
uint32_t divvy_event_attempts(struct divvy_event event);

/**
 * Returns an event as a JSON object with "kind", "time" (RFC 3339, when it occurred),
 * "reporter" and "worker", and the members of its kind: see docs/events.md. Members may be added in
 * any release.
 *
 * Parameters: event - the event. length - receives the length in bytes; NULL allowed.
 * Returns: the worker's id; an empty string for other kinds of events and for an invalid handle.
 * Never NULL.
 * Ownership: valid until the event is freed, or the callback that received it returns.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
const char *divvy_event_json(struct divvy_event event, size_t *length);

/**
 * Frees an event that divvy_events_poll() returned.
 *
 * Parameters: event - the event; {0} is allowed and does nothing.
 * Returns: OK; BAD_HANDLE, also on the second call.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_event_free(struct divvy_event event);

/**
 * Returns the assignment after the change, with the added and removed partitions.
 *
 * Parameters: event - the event, of kind DIVVY_EVENT_ASSIGNMENT. out - receives the handle; not
 * NULL. errbuf, errlen - buffer that receives the error text; NULL allowed.
 * Returns: OK; INVALID_ARGUMENT - an event of another kind.
 * Ownership: the caller frees the assignment with divvy_assignment_free(); it may outlive the event.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
divvy_status divvy_event_assignment(struct divvy_event event,
                                    struct divvy_assignment *out,
                                    char *errbuf,
                                    size_t errlen);

/**
 * Returns whether the worker leads now.
 *
 * Parameters: event - the event.
 * Returns: 1 or 0; 0 for other kinds of events and for an invalid handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_is_leader(struct divvy_event event);

/**
 * Returns the alert level of an outage.
 *
 * Parameters: event - the event.
 * Returns: a divvy_alert_level; DIVVY_ALERT_NONE for other kinds of events and for an invalid
 * handle.
 * Thread: any. Does not block.
 * Since: 0.1.
 */
int32_t divvy_event_alert_level(struct divvy_event event);

/**
 * Returns how long degraded mode has lasted, in milliseconds.
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
