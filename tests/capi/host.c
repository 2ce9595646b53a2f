/* The source and the strategy of the host drive a fleet; their failures are harmless. */
#include "check.h"

static volatile int source_calls, strategy_calls, destroyed, source_mode, strategy_mode;
static divvy_calculator calculator;

static int32_t source(void *userdata, divvy_partitions list, int64_t timeout_ms) {
    const char *json = "[{\"keys\":[\"b\"],\"weight\":5},{\"keys\":[\"a\",\"x\"]},{\"keys\":[\"c\"]}]";
    char why[256];
    CHECK(userdata == &destroyed && timeout_ms > 0);
    __sync_fetch_and_add(&source_calls, 1);
    CHECK(divvy_partitions_count(list) == 0);
    CHECK(divvy_calculator_stop(calculator, 100, why, sizeof why) == DIVVY_WOULD_DEADLOCK ||
          !divvy_calculator_is_started(calculator));
    if (source_mode == 1) {
        CHECK(divvy_callback_set_error("replaced", why, sizeof why) == DIVVY_OK);
        CHECK(divvy_callback_set_error("the database is down", why, sizeof why) == DIVVY_OK);
        CHECK(divvy_callback_set_error(NULL, why, sizeof why) == DIVVY_NULL_ARGUMENT);
        return DIVVY_UNAVAILABLE;
    }
    CHECK(divvy_partitions_add_json(list, json, strlen(json), why, sizeof why) == DIVVY_OK);
    if (source_mode == 2) CHECK(divvy_partitions_free(list) == DIVVY_OK); /* violates the rule */
    return DIVVY_OK;
}

/* Assigns everything to the last worker. */
static int32_t strategy(void *userdata, divvy_plan_input input, uint32_t *owners, size_t count) {
    size_t index, length = 0;
    int64_t workers = divvy_plan_input_worker_count(input);
    CHECK(userdata == &destroyed);
    __sync_fetch_and_add(&strategy_calls, 1);
    CHECK(workers > 0 && divvy_plan_input_partition_count(input) == (int64_t)count && count == 3);
    CHECK(strcmp(divvy_plan_input_worker(input, 0, &length), "worker-0") == 0 && length == 8);
    CHECK(divvy_plan_input_worker(input, (size_t)workers, NULL) == NULL);
    CHECK(divvy_plan_input_worker(input, (size_t)-1, NULL) == NULL);
    CHECK(divvy_plan_input_key_count(input, 0) == 2 && divvy_plan_input_key_count(input, 9) == 0);
    CHECK(strcmp(divvy_plan_input_key(input, 0, 1, &length), "x") == 0 && length == 1);
    CHECK(divvy_plan_input_key(input, 0, 2, NULL) == NULL);
    CHECK(divvy_plan_input_weight(input, 1) == 5 && divvy_plan_input_weight(input, 99) == 0);
    for (index = 0; index < count; index++) {
        CHECK(owners[index] == DIVVY_NO_WORKER);
        owners[index] = (uint32_t)workers - 1;
    }
    if (strategy_mode == 1) return -12345;
    if (strategy_mode == 2) owners[1] = DIVVY_NO_WORKER;
    if (strategy_mode == 3) owners[1] = (uint32_t)workers;
    return DIVVY_OK;
}

static void on_destroy(void *userdata) {
    CHECK(userdata == &destroyed);
    __sync_fetch_and_add(&destroyed, 1);
}

static void check_status_mentions(const char *text) {
    divvy_text status = {0};
    OK(divvy_calculator_status_json(calculator, &status, ERR));
    CHECK(strstr(divvy_text_data(status, NULL), text) != NULL);
    OK(divvy_text_free(status));
}

int main(void) {
    divvy_config config = new_config();
    divvy_store store = new_store(config);
    divvy_partitions list = new_partitions(1);
    fleet workers;
    int64_t version = 0, again = 0;
    OK(divvy_config_set_source(config, source, (void *)&destroyed, on_destroy, ERR));
    OK(divvy_config_set_strategy(config, "all-to-last", strategy, (void *)&destroyed, on_destroy, ERR));
    OK(divvy_calculator_new(config, store, &calculator, ERR));
    OK(divvy_config_free(config));
    CHECK(destroyed == 0); /* the calculator still uses them */
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_calculator_set_partitions(calculator, list, ERR));
    OK(divvy_partitions_free(list));
    fleet_start(&workers, store, 2);
    OK(divvy_calculator_start(calculator, TIMEOUT, ERR));
    WAIT_UNTIL(held(store, 1) == 3 && held(store, 0) == 0);
    CHECK(source_calls > 0 && strategy_calls > 0);
    fleet_resize(&workers, 3);
    WAIT_UNTIL(held(store, 2) == 3 && held(store, 1) == 0);

    source_mode = 1; /* a failure keeps the last plan and is reported */
    EXPECT(DIVVY_NOT_RUNNING, divvy_callback_set_error("outside of callbacks", ERR));
    EXPECT(DIVVY_SOURCE_FAILED, divvy_calculator_refresh(calculator, 2000, NULL, ERR));
    CHECK(strstr(err, "the database is down") && !strstr(err, "DIVVY_UNAVAILABLE"));
    check_status_mentions("the database is down");
    source_mode = 2;
    OK(divvy_calculator_refresh(calculator, TIMEOUT, NULL, ERR));
    source_mode = 0;
    OK(divvy_calculator_trigger_rebalance(calculator, TIMEOUT, &version, ERR));
    for (strategy_mode = 1; strategy_mode <= 3; strategy_mode++) {
        CHECK(divvy_calculator_trigger_rebalance(calculator, 300, NULL, ERR) != DIVVY_OK);
        CHECK(divvy_calculator_current_version(calculator) == version);
        CHECK(held(store, 2) == 3);
    }
    strategy_mode = 0;
    OK(divvy_calculator_trigger_rebalance(calculator, TIMEOUT, &again, ERR));
    CHECK(again > version);
    OK(divvy_calculator_free(calculator, ERR));
    CHECK(destroyed == 2);
    fleet_stop(&workers);
    OK(divvy_store_free(store));
    return 0;
}
