//go:build cgo

#include "bridge.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "_cgo_export.h"

/* Handles are passed to Go as numbers. */
static uintptr_t handle_of(void *userdata) { return (uintptr_t)userdata; }

static void on_destroy(void *userdata) { divvyGoDestroy(handle_of(userdata)); }

static int32_t on_source(void *userdata, divvy_partitions partitions, int64_t timeout_ms) {
    return divvyGoSource(handle_of(userdata), partitions.id, timeout_ms);
}

static void on_log(void *userdata, int32_t level, const char *target, const char *message,
                   size_t length, divvy_log_record record) {
    divvyGoLog(handle_of(userdata), level, (char *)target, (char *)message, length, record.id);
}

/* A growing byte buffer. */
typedef struct {
    char *data;
    size_t length, capacity;
} bytes;

static int append(bytes *to, const void *data, size_t length) {
    if (to->capacity - to->length < length) {
        size_t capacity = (to->capacity + length) * 2;
        char *grown = realloc(to->data, capacity);
        if (!grown) return 0;
        to->data = grown;
        to->capacity = capacity;
    }
    memcpy(to->data + to->length, data, length);
    to->length += length;
    return 1;
}

static int append_text(bytes *to, const char *text, size_t length) {
    uint32_t size = (uint32_t)length;
    return append(to, &size, sizeof size) && append(to, text, length);
}

/* Layout: number of workers and partitions; name of each worker; weight, number of keys and keys of
 * each partition. Numbers are in native byte order. */
static int pack(divvy_plan_input input, bytes *to) {
    uint64_t workers = (uint64_t)divvy_plan_input_worker_count(input);
    uint64_t partitions = (uint64_t)divvy_plan_input_partition_count(input);
    uint64_t index;
    if (!append(to, &workers, sizeof workers) || !append(to, &partitions, sizeof partitions)) return 0;
    for (index = 0; index < workers; index++) {
        size_t length = 0;
        const char *name = divvy_plan_input_worker(input, index, &length);
        if (!append_text(to, name, length)) return 0;
    }
    for (index = 0; index < partitions; index++) {
        int64_t weight = divvy_plan_input_weight(input, index);
        uint32_t keys = (uint32_t)divvy_plan_input_key_count(input, index), key;
        if (!append(to, &weight, sizeof weight) || !append(to, &keys, sizeof keys)) return 0;
        for (key = 0; key < keys; key++) {
            size_t length = 0;
            const char *text = divvy_plan_input_key(input, index, key, &length);
            if (!append_text(to, text, length)) return 0;
        }
    }
    return 1;
}

static int32_t on_strategy(void *userdata, divvy_plan_input input, uint32_t *owners, size_t count) {
    bytes packed = {0};
    int32_t status = -1;
    if (pack(input, &packed))
        status = divvyGoStrategy(handle_of(userdata), packed.data, packed.length, owners, count);
    free(packed.data);
    return status;
}

static int32_t on_campaign(void *userdata, const char *worker, int64_t timeout_ms,
                           int64_t *lease_ms) {
    return divvyGoCampaign(handle_of(userdata), (char *)worker, timeout_ms, lease_ms);
}

static int32_t on_resign(void *userdata, const char *worker, int64_t timeout_ms) {
    return divvyGoResign(handle_of(userdata), (char *)worker, timeout_ms);
}

divvy_status divvy_go_set_source(divvy_config config, uintptr_t handle, char *errbuf, size_t errlen) {
    return divvy_config_set_source(config, on_source, (void *)handle, on_destroy, errbuf, errlen);
}

divvy_status divvy_go_set_strategy(divvy_config config, const char *name, uintptr_t handle,
                                   char *errbuf, size_t errlen) {
    return divvy_config_set_strategy(config, name, on_strategy, (void *)handle, on_destroy, errbuf,
                                     errlen);
}

divvy_status divvy_go_set_election(divvy_config config, uintptr_t handle, char *errbuf,
                                   size_t errlen) {
    return divvy_config_set_election(config, on_campaign, on_resign, (void *)handle, on_destroy,
                                     errbuf, errlen);
}

static int32_t on_credentials(void *userdata, const char *nonce, size_t length,
                              divvy_credentials credentials) {
    return divvyGoCredentials(handle_of(userdata), (char *)nonce, length, credentials.id);
}

divvy_status divvy_go_set_credentials(divvy_config config, uintptr_t handle, char *errbuf,
                                      size_t errlen) {
    return divvy_config_set_credentials(config, on_credentials, (void *)handle, on_destroy, errbuf,
                                        errlen);
}

divvy_status divvy_go_log_set(int32_t max_level, uintptr_t handle, char *errbuf, size_t errlen) {
    return divvy_log_set(max_level, handle ? on_log : NULL, (void *)handle,
                         handle ? on_destroy : NULL, errbuf, errlen);
}

/* One call from Go, so that no other goroutine runs on this thread in between. */
#define USING(cancel, call)                     \
    do {                                        \
        divvy_cancel none = {0};                \
        divvy_status status;                    \
        divvy_cancel_use(cancel, NULL, 0);      \
        status = call;                          \
        divvy_cancel_use(none, NULL, 0);        \
        return status;                          \
    } while (0)

divvy_status divvy_go_calculator_start(divvy_cancel cancel, divvy_calculator calculator,
                                       int64_t timeout_ms, char *errbuf, size_t errlen) {
    USING(cancel, divvy_calculator_start(calculator, timeout_ms, errbuf, errlen));
}

divvy_status divvy_go_calculator_stop(divvy_cancel cancel, divvy_calculator calculator,
                                      int64_t timeout_ms, char *errbuf, size_t errlen) {
    USING(cancel, divvy_calculator_stop(calculator, timeout_ms, errbuf, errlen));
}

divvy_status divvy_go_calculator_trigger(divvy_cancel cancel, divvy_calculator calculator,
                                         int64_t timeout_ms, char *errbuf, size_t errlen) {
    USING(cancel, divvy_calculator_trigger_rebalance(calculator, timeout_ms, NULL, errbuf, errlen));
}

divvy_status divvy_go_calculator_refresh(divvy_cancel cancel, divvy_calculator calculator,
                                         int64_t timeout_ms, char *errbuf, size_t errlen) {
    USING(cancel, divvy_calculator_refresh(calculator, timeout_ms, NULL, errbuf, errlen));
}

divvy_status divvy_go_calculator_confirm(divvy_cancel cancel, divvy_calculator calculator,
                                         int64_t timeout_ms, char *errbuf, size_t errlen) {
    USING(cancel, divvy_calculator_confirm_partitions(calculator, timeout_ms, NULL, errbuf, errlen));
}

divvy_status divvy_go_manager_confirm(divvy_cancel cancel, divvy_manager manager,
                                      int64_t timeout_ms, char *errbuf, size_t errlen) {
    USING(cancel, divvy_manager_confirm_partitions(manager, timeout_ms, NULL, errbuf, errlen));
}

divvy_status divvy_go_manager_start(divvy_cancel cancel, divvy_manager manager, int64_t timeout_ms,
                                    char *errbuf, size_t errlen) {
    USING(cancel, divvy_manager_start(manager, timeout_ms, errbuf, errlen));
}

divvy_status divvy_go_manager_stop(divvy_cancel cancel, divvy_manager manager, int32_t departure,
                                   int64_t timeout_ms, char *errbuf, size_t errlen) {
    USING(cancel, divvy_manager_stop(manager, departure, timeout_ms, errbuf, errlen));
}

divvy_status divvy_go_manager_wait_state(divvy_cancel cancel, divvy_manager manager, int32_t state,
                                         int64_t timeout_ms, char *errbuf, size_t errlen) {
    USING(cancel, divvy_manager_wait_state(manager, state, timeout_ms, errbuf, errlen));
}

divvy_status divvy_go_manager_trigger(divvy_cancel cancel, divvy_manager manager,
                                      int64_t timeout_ms, char *errbuf, size_t errlen) {
    USING(cancel, divvy_manager_trigger_rebalance(manager, timeout_ms, NULL, errbuf, errlen));
}

divvy_status divvy_go_manager_refresh(divvy_cancel cancel, divvy_manager manager,
                                      int64_t timeout_ms, char *errbuf, size_t errlen) {
    USING(cancel, divvy_manager_refresh_partitions(manager, timeout_ms, NULL, errbuf, errlen));
}

divvy_status divvy_go_store_open(divvy_cancel cancel, divvy_config config, int64_t timeout_ms,
                                 divvy_store *out, char *errbuf, size_t errlen) {
    USING(cancel, divvy_store_open(config, timeout_ms, out, errbuf, errlen));
}

divvy_status divvy_go_store_ensure(divvy_cancel cancel, divvy_store store, int32_t bucket,
                                   int64_t ttl_ms, int64_t timeout_ms, char *errbuf, size_t errlen) {
    USING(cancel, divvy_store_ensure(store, bucket, ttl_ms, timeout_ms, errbuf, errlen));
}

divvy_status divvy_go_store_put(divvy_cancel cancel, divvy_store store, int32_t bucket,
                                const char *key, const char *value, size_t length,
                                int64_t timeout_ms, char *errbuf, size_t errlen) {
    USING(cancel, divvy_store_put(store, bucket, key, value, length, timeout_ms, errbuf, errlen));
}

divvy_status divvy_go_store_delete(divvy_cancel cancel, divvy_store store, int32_t bucket,
                                   const char *key, int64_t timeout_ms, char *errbuf, size_t errlen) {
    USING(cancel, divvy_store_delete(store, bucket, key, timeout_ms, errbuf, errlen));
}

divvy_status divvy_go_store_get(divvy_cancel cancel, divvy_store store, int32_t bucket,
                                const char *key, int64_t timeout_ms, divvy_text *out, char *errbuf,
                                size_t errlen) {
    USING(cancel, divvy_store_get(store, bucket, key, timeout_ms, out, errbuf, errlen));
}

divvy_status divvy_go_next(divvy_events events, int keep, divvy_go_event *out) {
    divvy_event event = {0};
    divvy_status status = divvy_events_poll(events, -1, &event, NULL, 0);
    if (status != DIVVY_OK) return status;
    out->event = event;
    out->time_ns = divvy_event_time_ns(event);
    out->version = divvy_event_version(event);
    out->kind = divvy_event_get_kind(event);
    out->state = divvy_event_state(event);
    out->from_state = divvy_event_from_state(event);
    out->reason = divvy_event_reason(event);
    if (keep) return DIVVY_OK;
    if (out->kind == DIVVY_EVENT_CALCULATOR_STATE || out->kind == DIVVY_EVENT_MANAGER_STATE) {
        divvy_event_free(event);
        out->event.id = 0;
    }
    return DIVVY_OK;
}

uintptr_t divvy_go_thread(void) { return (uintptr_t)pthread_self(); }
