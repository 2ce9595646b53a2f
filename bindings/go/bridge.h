/* What cgo cannot say: callbacks with a Go handle as userdata, and a strategy's input in one piece. */
#ifndef DIVVY_GO_BRIDGE_H
#define DIVVY_GO_BRIDGE_H

#ifdef __has_include
#if !__has_include(<divvy.h>)
#error "divvy.h not found: run `make go-lib` first, or `make install` and build with -tags divvy_dynamic"
#endif
#endif
#include <divvy.h>

divvy_status divvy_go_set_source(divvy_config config, uintptr_t handle, char *errbuf, size_t errlen);
divvy_status divvy_go_set_strategy(divvy_config config, const char *name, uintptr_t handle,
                                   char *errbuf, size_t errlen);
divvy_status divvy_go_set_election(divvy_config config, uintptr_t handle, char *errbuf,
                                   size_t errlen);
divvy_status divvy_go_set_credentials(divvy_config config, uintptr_t handle, char *errbuf,
                                      size_t errlen);
/* Calls that wait, ended when cancel is fired. */
divvy_status divvy_go_calculator_start(divvy_cancel cancel, divvy_calculator calculator,
                                       int64_t timeout_ms, char *errbuf, size_t errlen);
divvy_status divvy_go_calculator_stop(divvy_cancel cancel, divvy_calculator calculator,
                                      int64_t timeout_ms, char *errbuf, size_t errlen);
divvy_status divvy_go_calculator_trigger(divvy_cancel cancel, divvy_calculator calculator,
                                         int64_t timeout_ms, char *errbuf, size_t errlen);
divvy_status divvy_go_calculator_refresh(divvy_cancel cancel, divvy_calculator calculator,
                                         int64_t timeout_ms, char *errbuf, size_t errlen);
divvy_status divvy_go_calculator_confirm(divvy_cancel cancel, divvy_calculator calculator,
                                         int64_t timeout_ms, char *errbuf, size_t errlen);
divvy_status divvy_go_manager_start(divvy_cancel cancel, divvy_manager manager, int64_t timeout_ms,
                                    char *errbuf, size_t errlen);
divvy_status divvy_go_manager_stop(divvy_cancel cancel, divvy_manager manager, int32_t departure,
                                   int64_t timeout_ms, char *errbuf, size_t errlen);
divvy_status divvy_go_manager_wait_state(divvy_cancel cancel, divvy_manager manager, int32_t state,
                                         int64_t timeout_ms, char *errbuf, size_t errlen);
divvy_status divvy_go_manager_trigger(divvy_cancel cancel, divvy_manager manager,
                                      int64_t timeout_ms, char *errbuf, size_t errlen);
divvy_status divvy_go_manager_refresh(divvy_cancel cancel, divvy_manager manager,
                                      int64_t timeout_ms, char *errbuf, size_t errlen);
divvy_status divvy_go_manager_confirm(divvy_cancel cancel, divvy_manager manager,
                                      int64_t timeout_ms, char *errbuf, size_t errlen);
divvy_status divvy_go_store_open(divvy_cancel cancel, divvy_config config, int64_t timeout_ms,
                                 divvy_store *out, char *errbuf, size_t errlen);
divvy_status divvy_go_store_ensure(divvy_cancel cancel, divvy_store store, int32_t bucket,
                                   int64_t ttl_ms, int64_t timeout_ms, char *errbuf, size_t errlen);
divvy_status divvy_go_store_put(divvy_cancel cancel, divvy_store store, int32_t bucket,
                                const char *key, const char *value, size_t length,
                                int64_t timeout_ms, char *errbuf, size_t errlen);
divvy_status divvy_go_store_delete(divvy_cancel cancel, divvy_store store, int32_t bucket,
                                   const char *key, int64_t timeout_ms, char *errbuf, size_t errlen);
divvy_status divvy_go_store_get(divvy_cancel cancel, divvy_store store, int32_t bucket,
                                const char *key, int64_t timeout_ms, divvy_text *out, char *errbuf,
                                size_t errlen);

/* What nearly all want to know of an event, in one call. event is {0} when there is nothing else to be
 * known of it; otherwise it is the caller's to free. */
typedef struct {
    divvy_event event;
    uint64_t time_ns;
    int64_t version;
    int32_t kind, state, from_state, reason;
} divvy_go_event;

/* Waits for the next event; see divvy_events_poll(). keep: event is never {0}. */
divvy_status divvy_go_next(divvy_events events, int keep, divvy_go_event *out);

/* Which thread this is, for as long as it lives. */
uintptr_t divvy_go_thread(void);

divvy_status divvy_go_log_set(int32_t max_level, uintptr_t handle, char *errbuf, size_t errlen);

#endif
