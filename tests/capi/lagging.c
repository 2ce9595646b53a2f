/* A worker that reports in its heartbeats that it has not applied its assignment: its leader reports
 * it as lagging. */
#include "check.h"

static divvy_store store;

static void beat_as(long long applied) {
    char value[256];
    snprintf(value, sizeof value,
             "{\"worker\":\"worker-0\",\"time\":\"2026-01-01T00:00:00Z\",\"applied_term\":1,"
             "\"applied_version\":%lld}",
             applied);
    OK(divvy_store_put(store, DIVVY_BUCKET_HEARTBEAT, "heartbeat.worker-0", value, strlen(value),
                       TIMEOUT, ERR));
}

static void lag(divvy_calculator handle) {
    divvy_events events = {0};
    divvy_event event = {0};
    int64_t limit = now_ns() + (int64_t)TIMEOUT * 1000000, version = 0;
    OK(divvy_calculator_events(handle, DIVVY_FILTER_STATE, &events, ERR));
    OK(divvy_calculator_trigger_rebalance(handle, TIMEOUT, &version, ERR));
    for (;;) {
        divvy_status status;
        CHECK(now_ns() < limit);
        beat_as(version - 1); /* live and lagging */
        status = divvy_events_poll(events, 100, &event, ERR);
        if (status == DIVVY_TIMED_OUT) continue;
        CHECK(status == DIVVY_OK);
        if (divvy_event_get_kind(event) == DIVVY_EVENT_WORKER_LAGGING) break;
        CHECK(divvy_event_applied_version(event) == 0);
        OK(divvy_event_free(event));
    }
    CHECK(strcmp(divvy_event_worker(event, NULL), "worker-0") == 0);
    CHECK(divvy_event_version(event) == version);
    CHECK(divvy_event_applied_version(event) == version - 1);
    CHECK(strstr(divvy_event_message(event, NULL), "worker-0") != NULL);
    CHECK(strstr(divvy_event_json(event, NULL), "\"kind\":\"worker_lagging\"") != NULL);
    OK(divvy_event_free(event));
    OK(divvy_events_free(events));
}

int main(void) {
    divvy_config config = new_config();
    divvy_calculator calculator = {0};
    divvy_partitions list = new_partitions(4);
    OK(divvy_config_set(config, "apply_timeout", "300ms", ERR));
    store = new_store(config);
    beat_as(0);
    OK(divvy_calculator_new(config, store, &calculator, ERR));
    OK(divvy_calculator_set_partitions(calculator, list, ERR));
    OK(divvy_calculator_start(calculator, TIMEOUT, ERR));
    lag(calculator);
    OK(divvy_calculator_free(calculator, ERR));
    OK(divvy_partitions_free(list));
    OK(divvy_config_free(config));
    OK(divvy_store_free(store));
    return 0;
}
