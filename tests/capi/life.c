/* The lifecycle of a calculator: pushed partitions, a fleet that grows, shrinks and loses a worker. */
#include "check.h"

static int64_t version_of(divvy_calculator calculator) {
    return divvy_calculator_current_version(calculator);
}

static void check_status(divvy_calculator calculator) {
    divvy_text text = {0};
    size_t length = 0;
    const char *json;
    OK(divvy_calculator_status_json(calculator, &text, ERR));
    json = divvy_text_data(text, &length);
    CHECK(length == strlen(json) && json[0] == '{');
    CHECK(strstr(json, "\"is_started\":true") != NULL);
    CHECK(strstr(json, "\"worker\":\"worker-0\"") != NULL);
    OK(divvy_text_free(text));
    EXPECT(DIVVY_BAD_HANDLE, divvy_text_free(text));
    CHECK(strcmp(divvy_text_data(text, &length), "") == 0 && length == 0);
}

static void check_metrics(divvy_calculator calculator) {
    divvy_text text = {0};
    size_t length = 0;
    const char *page;
    OK(divvy_calculator_metrics(calculator, &text, ERR));
    page = divvy_text_data(text, &length);
    CHECK(length == strlen(page) && page[length - 1] == '\n');
    CHECK(strstr(page, "# TYPE divvy_rebalances_total counter\n") != NULL);
    CHECK(strstr(page, "divvy_calculator_up{fleet=\"c\"} 1\n") != NULL);
    CHECK(strstr(page, "divvy_workers_alive{fleet=\"c\"} 2\n") != NULL);
    OK(divvy_text_free(text));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_calculator_metrics(calculator, NULL, ERR));
}

static void check_metric_names(divvy_store store) {
    divvy_calculator calculator = {0};
    divvy_config config = new_config();
    OK(divvy_config_set(config, "metrics_labels", "state=clashes", ERR));
    EXPECT(DIVVY_INVALID_CONFIG, divvy_calculator_new(config, store, &calculator, ERR));
    CHECK(calculator.id == 0);
    OK(divvy_config_free(config));
}

int main(void) {
    divvy_config config;
    divvy_store store;
    divvy_calculator calculator = {0};
    divvy_partitions list;
    fleet workers;
    int64_t before, version = 0;

    OK(divvy_check_abi(DIVVY_ABI_VERSION));
    CHECK(divvy_version_number() == DIVVY_VERSION_MAJOR * 1000000 + DIVVY_VERSION_MINOR * 1000 +
                                        DIVVY_VERSION_PATCH);
    config = new_config();
    store = new_store(config);
    OK(divvy_config_set(config, "metrics_labels", "fleet=c", ERR));
    check_metric_names(store);
    OK(divvy_calculator_new(config, store, &calculator, ERR));
    OK(divvy_config_free(config));
    CHECK(divvy_calculator_is_started(calculator) == 0);
    CHECK(divvy_calculator_get_state(calculator) == DIVVY_CALCULATOR_IDLE);
    EXPECT(DIVVY_NOT_RUNNING, divvy_calculator_trigger_rebalance(calculator, 100, NULL, ERR));
    OK(divvy_calculator_stop(calculator, TIMEOUT, ERR));

    fleet_start(&workers, store, 2);
    list = new_partitions(10);
    OK(divvy_calculator_set_partitions(calculator, list, ERR));
    OK(divvy_partitions_free(list));
    OK(divvy_calculator_start(calculator, TIMEOUT, ERR));
    EXPECT(DIVVY_ALREADY_STARTED, divvy_calculator_start(calculator, TIMEOUT, ERR));
    CHECK(divvy_calculator_is_started(calculator) == 1);
    WAIT_UNTIL(held(store, 0) == 5 && held(store, 1) == 5);
    check_status(calculator);
    check_metrics(calculator);

    fleet_resize(&workers, 5);
    WAIT_UNTIL(held(store, 0) == 2 && held(store, 4) == 2);

    before = version_of(calculator);
    OK(divvy_calculator_trigger_rebalance(calculator, TIMEOUT, &version, ERR));
    CHECK(version > before && version_of(calculator) >= version);

    list = new_partitions(20);
    OK(divvy_calculator_set_partitions(calculator, list, ERR));
    OK(divvy_partitions_free(list));
    WAIT_UNTIL(held(store, 0) == 4);
    OK(divvy_calculator_refresh(calculator, TIMEOUT, NULL, ERR));

    fleet_resize(&workers, 4); /* one leaves and deletes its key */
    nap_ms(250);
    OK(divvy_store_delete(store, DIVVY_BUCKET_HEARTBEAT, "heartbeat.worker-4", TIMEOUT, ERR));
    WAIT_UNTIL(held(store, 0) == 5 && held(store, 4) == -1);

    fleet_resize(&workers, 3); /* one crashes */
    WAIT_UNTIL(held(store, 3) == -1);
    WAIT_UNTIL(divvy_calculator_get_state(calculator) == DIVVY_CALCULATOR_IDLE);
    CHECK(divvy_calculator_scaling_reason(calculator) == DIVVY_REASON_NONE);

    OK(divvy_calculator_stop(calculator, TIMEOUT, ERR));
    OK(divvy_calculator_stop(calculator, TIMEOUT, ERR));
    CHECK(divvy_calculator_is_started(calculator) == 0);
    EXPECT(DIVVY_NOT_RUNNING, divvy_calculator_trigger_rebalance(calculator, 100, NULL, ERR));

    before = version_of(calculator); /* a second lifecycle: nothing is lost, versions continue */
    OK(divvy_calculator_start(calculator, TIMEOUT, ERR));
    OK(divvy_calculator_trigger_rebalance(calculator, TIMEOUT, &version, ERR));
    CHECK(version > before);

    OK(divvy_calculator_free(calculator, ERR)); /* also stops it */
    EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_free(calculator, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_start(calculator, TIMEOUT, ERR));
    fleet_stop(&workers);
    OK(divvy_store_stop(store, TIMEOUT, ERR));
    OK(divvy_store_stop(store, TIMEOUT, ERR));
    EXPECT(DIVVY_NOT_RUNNING,
           divvy_store_put(store, DIVVY_BUCKET_HEARTBEAT, "a.b", "", 0, 100, ERR));
    OK(divvy_store_free(store));
    EXPECT(DIVVY_BAD_HANDLE, divvy_store_free(store));
    return 0;
}
