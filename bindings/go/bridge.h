/* What cgo cannot say: callbacks with a Go handle as userdata, and a strategy's input in one piece. */
#ifndef DIVVY_GO_BRIDGE_H
#define DIVVY_GO_BRIDGE_H

#include <divvy.h>

divvy_status divvy_go_set_source(divvy_config config, uintptr_t handle, char *errbuf, size_t errlen);
divvy_status divvy_go_set_strategy(divvy_config config, const char *name, uintptr_t handle,
                                   char *errbuf, size_t errlen);
divvy_status divvy_go_set_election(divvy_config config, uintptr_t handle, char *errbuf,
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

/* Which thread this is, for as long as it lives. */
uintptr_t divvy_go_thread(void);

divvy_status divvy_go_log_set(int32_t max_level, uintptr_t handle, char *errbuf, size_t errlen);

#endif
