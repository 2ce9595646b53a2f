/* What cgo cannot say: callbacks with a Go handle as userdata, and a strategy's input in one piece. */
#ifndef DIVVY_GO_BRIDGE_H
#define DIVVY_GO_BRIDGE_H

#include <divvy.h>

divvy_status divvy_go_set_source(divvy_config config, uintptr_t handle, char *errbuf, size_t errlen);
divvy_status divvy_go_set_strategy(divvy_config config, const char *name, uintptr_t handle,
                                   char *errbuf, size_t errlen);
divvy_status divvy_go_set_election(divvy_config config, uintptr_t handle, char *errbuf,
                                   size_t errlen);
divvy_status divvy_go_log_set(int32_t max_level, uintptr_t handle, char *errbuf, size_t errlen);

#endif
