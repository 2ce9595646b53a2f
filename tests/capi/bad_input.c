/* Every function with every kind of bad input: returns a status, never crashes, and leaves outputs
 * unchanged. */
#include "check.h"

#define BAD 0x7fffffffffffffffull

static const divvy_config no_config = {0}, bad_config = {BAD};
static const divvy_store no_store = {0}, bad_store = {BAD};
static const divvy_calculator none = {0}, bad = {BAD};
static const divvy_manager no_manager = {0}, bad_manager = {BAD};
static const divvy_assignment no_assignment = {0}, bad_assignment = {BAD};
static const divvy_partitions no_list = {0}, bad_list = {BAD};
static const divvy_subscription no_subscription = {0}, bad_subscription = {BAD};
static const divvy_events no_events = {0}, bad_events = {BAD};
static const divvy_event no_event = {0}, bad_event = {BAD};
static const divvy_text no_text = {0}, bad_text = {BAD};
static const divvy_plan_input no_input = {0}, bad_input = {BAD};

static char *too_long(void) {
    char *text = (char *)malloc(DIVVY_TEXT_MAX + 2);
    memset(text, 'x', DIVVY_TEXT_MAX + 1);
    text[DIVVY_TEXT_MAX + 1] = 0;
    return text;
}

static void on_event(void *userdata, divvy_event event) { (void)userdata, (void)event; }

static void on_destroy(void *userdata) { ++*(int *)userdata; }

static void errors_are_written_to_fit(void) {
    char small[8];
    memset(small, 'z', sizeof small);
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_config_new(NULL, small, 5));
    CHECK(strlen(small) == 4 && small[5] == 'z');
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_config_new(NULL, small, 1));
    CHECK(small[0] == 0 && small[5] == 'z');
    small[0] = 'z';
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_config_new(NULL, small, 0));
    CHECK(small[0] == 'z');
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_config_new(NULL, NULL, 100));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_config_new(NULL, NULL, 0));
}

static void configs(void) {
    divvy_config config = {0};
    divvy_text text = {0};
    char *endless = too_long();
    int destroyed = 0;
    OK(divvy_config_new(&config, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_config_set(no_config, "name", "x", ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_config_set(bad_config, "name", "x", ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_config_set(config, NULL, "x", ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_config_set(config, "name", NULL, ERR));
    EXPECT(DIVVY_BAD_UTF8, divvy_config_set(config, "na\xffme", "x", ERR));
    EXPECT(DIVVY_BAD_UTF8, divvy_config_set(config, "name", "\xc3", ERR));
    EXPECT(DIVVY_TOO_LONG, divvy_config_set(config, endless, "x", ERR));
    EXPECT(DIVVY_TOO_LONG, divvy_config_set(config, "name", endless, ERR));
    EXPECT(DIVVY_INVALID_CONFIG, divvy_config_set(config, "cooldwon", "1s", ERR));
    CHECK(strstr(err, "did you mean cooldown?") != NULL);
    EXPECT(DIVVY_INVALID_CONFIG, divvy_config_set(config, "cooldown", "1", ERR));
    EXPECT(DIVVY_INVALID_CONFIG, divvy_config_set(config, "cooldown", "-1s", ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_config_merge_json(config, NULL, 3, ERR));
    EXPECT(DIVVY_INVALID_CONFIG, divvy_config_merge_json(config, NULL, 0, ERR));
    EXPECT(DIVVY_INVALID_CONFIG, divvy_config_merge_json(config, "{}x", 3, ERR));
    EXPECT(DIVVY_TOO_LONG, divvy_config_merge_json(config, "{}", (size_t)-1, ERR));
    EXPECT(DIVVY_TOO_LONG, divvy_config_merge_json(config, "{}", DIVVY_BYTES_MAX + 1, ERR));
    EXPECT(DIVVY_BAD_UTF8, divvy_config_merge_json(config, "\"\xff\"", 3, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_config_merge_json(bad_config, "{}", 2, ERR));
    OK(divvy_config_merge_json(config, "{}garbage", 2, ERR)); /* the length counts */
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_config_merge_env(config, "", ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_config_merge_env(bad_config, NULL, ERR));
    setenv("DVTEST_COOLDOWN", "3s", 1);
    OK(divvy_config_merge_env(config, "DVTEST_", ERR));
    setenv("DVTEST_COOLDWON", "3s", 1);
    OK(divvy_config_merge_env(config, "DVTEST_", ERR)); /* a warning */
    setenv("DVTEST_STRICT", "true", 1);
    EXPECT(DIVVY_INVALID_CONFIG, divvy_config_merge_env(config, "DVTEST_", ERR));
    CHECK(strstr(err, "DVTEST_COOLDWON") != NULL);
    unsetenv("DVTEST_STRICT");
    setenv("DVTEST_COOLDWON", "\xff", 1);
    EXPECT(DIVVY_BAD_UTF8, divvy_config_merge_env(config, "DVTEST_", ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_config_dump(config, NULL, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_config_dump(bad_config, &text, ERR));
    CHECK(text.id == 0);
    OK(divvy_config_set(config, "nats_password", "hunter2", ERR));
    OK(divvy_config_dump(config, &text, ERR));
    CHECK(strstr(divvy_text_data(text, NULL), "env DVTEST_COOLDOWN") != NULL);
    CHECK(strstr(divvy_text_data(text, NULL), "hunter2") == NULL);
    OK(divvy_text_free(text));
    EXPECT(DIVVY_BAD_HANDLE, divvy_config_set_source(bad_config, NULL, &destroyed, on_destroy, ERR));
    EXPECT(DIVVY_BAD_HANDLE,
           divvy_config_set_strategy(bad_config, "x", NULL, &destroyed, on_destroy, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT,
           divvy_config_set_strategy(config, NULL, NULL, &destroyed, on_destroy, ERR));
    CHECK(destroyed == 0); /* userdata stays the caller's on a failure */
    OK(divvy_config_free(no_config));
    EXPECT(DIVVY_BAD_HANDLE, divvy_config_free(bad_config));
    OK(divvy_config_free(config));
    EXPECT(DIVVY_BAD_HANDLE, divvy_config_free(config));
    EXPECT(DIVVY_BAD_HANDLE, divvy_config_set(config, "name", "x", ERR));
    free(endless);
}

static void stores(divvy_store store) {
    divvy_store out = {0};
    divvy_text text = {0};
    divvy_config config = {0};
    char *endless = too_long();
    const int heartbeat = DIVVY_BUCKET_HEARTBEAT;
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_store_open(no_config, 100, NULL, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_store_open(bad_config, 100, &out, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_store_open(no_config, -1, &out, ERR));
    OK(divvy_config_new(&config, ERR));
    OK(divvy_config_set(config, "nats_url", "::::", ERR));
    EXPECT(DIVVY_INVALID_CONFIG, divvy_store_open(config, 100, &out, ERR));
    OK(divvy_config_set(config, "nats_url", "127.0.0.1:1", ERR));
    CHECK(divvy_status_is_retriable(divvy_store_open(config, 100, &out, ERR)));
    OK(divvy_config_set(config, "nats_user", "me", ERR));
    OK(divvy_config_set(config, "nats_token", "you", ERR));
    EXPECT(DIVVY_INVALID_CONFIG, divvy_store_open(config, 100, &out, ERR));
    OK(divvy_config_free(config));
    CHECK(out.id == 0);
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_store_stop(no_store, 1, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_store_stop(bad_store, 1, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_store_stop(store, -1, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_store_ensure(store, 0, 0, 100, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_store_ensure(store, heartbeat, -1, 100, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT,
           divvy_store_ensure(store, heartbeat, 0, DIVVY_TIMEOUT_MAX_MS + 1, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_store_ensure(bad_store, heartbeat, 0, 100, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_store_put(store, heartbeat, NULL, "x", 1, 100, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_store_put(store, heartbeat, "a.b", NULL, 1, 100, ERR));
    EXPECT(DIVVY_TOO_LONG, divvy_store_put(store, heartbeat, "a.b", "x", (size_t)-1, 100, ERR));
    EXPECT(DIVVY_TOO_LONG, divvy_store_put(store, heartbeat, endless, "x", 1, 100, ERR));
    EXPECT(DIVVY_BAD_UTF8, divvy_store_put(store, heartbeat, "\xff", "x", 1, 100, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_store_put(store, heartbeat, "a b", "x", 1, 100, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_store_put(store, heartbeat, "", "x", 1, 100, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_store_put(store, 99, "a.b", "x", 1, 100, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_store_put(bad_store, heartbeat, "a.b", "x", 1, 100, ERR));
    {
        size_t size = 4 << 20;
        char *huge = (char *)calloc(1, size);
        EXPECT(DIVVY_TOO_LARGE, divvy_store_put(store, heartbeat, "a.b", huge, size, TIMEOUT, ERR));
        free(huge);
    }
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_store_delete(store, heartbeat, NULL, 100, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_store_delete(bad_store, heartbeat, "a.b", 100, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_store_get(store, heartbeat, "a.b", 100, NULL, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_store_get(store, heartbeat, NULL, 100, &text, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_store_get(bad_store, heartbeat, "a.b", 100, &text, ERR));
    EXPECT(DIVVY_NOT_FOUND, divvy_store_get(store, heartbeat, "a.b", TIMEOUT, &text, ERR));
    CHECK(text.id == 0);
    OK(divvy_store_put(store, heartbeat, "a.b", "\xff\0x", 3, TIMEOUT, ERR));
    OK(divvy_store_get(store, heartbeat, "a.b", TIMEOUT, &text, ERR));
    {
        size_t length = 0;
        const char *value = divvy_text_data(text, &length);
        CHECK(length == 3 && memcmp(value, "\xff\0x\0", 4) == 0);
    }
    OK(divvy_text_free(text));
    OK(divvy_store_delete(store, heartbeat, "a.b", TIMEOUT, ERR));
    EXPECT(DIVVY_NOT_FOUND, divvy_store_get(store, heartbeat, "a.b", TIMEOUT, &text, ERR));
    OK(divvy_store_free(no_store));
    EXPECT(DIVVY_BAD_HANDLE, divvy_store_free(bad_store));
    free(endless);
}

static void partition_lists(void) {
    divvy_partitions list = {0};
    const char *keys[DIVVY_PARTITION_KEYS_MAX + 1];
    const char *good = "[{\"keys\":[\"a\"],\"weight\":3},{\"keys\":[\"b\",\"c\"],\"more\":0}]";
    int index;
    for (index = 0; index <= DIVVY_PARTITION_KEYS_MAX; index++) keys[index] = "key";
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_partitions_new(NULL, ERR));
    OK(divvy_partitions_new(&list, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_partitions_add(no_list, keys, 1, 1, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_partitions_add(bad_list, keys, 1, 1, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_partitions_add(list, NULL, 1, 1, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_partitions_add(list, keys, 0, 1, ERR));
    EXPECT(DIVVY_TOO_LONG, divvy_partitions_add(list, keys, DIVVY_PARTITION_KEYS_MAX + 1, 1, ERR));
    EXPECT(DIVVY_TOO_LONG, divvy_partitions_add(list, keys, (size_t)-1, 1, ERR));
    OK(divvy_partitions_add(list, keys, DIVVY_PARTITION_KEYS_MAX, INT64_MIN, ERR));
    keys[1] = NULL;
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_partitions_add(list, keys, 2, 1, ERR));
    keys[1] = "\xff";
    EXPECT(DIVVY_BAD_UTF8, divvy_partitions_add(list, keys, 2, 1, ERR));
    CHECK(divvy_partitions_count(list) == 1);
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_partitions_add_json(list, NULL, 1, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_partitions_add_json(list, "{}", 2, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_partitions_add_json(list, "[1]", 3, ERR));
    EXPECT(DIVVY_TOO_LONG, divvy_partitions_add_json(list, "[]", (size_t)-1, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_partitions_add_json(bad_list, "[]", 2, ERR));
    OK(divvy_partitions_add_json(list, good, strlen(good), ERR));
    CHECK(divvy_partitions_count(list) == 3);
    CHECK(divvy_partitions_count(no_list) == DIVVY_NULL_ARGUMENT);
    CHECK(divvy_partitions_count(bad_list) == DIVVY_BAD_HANDLE);
    OK(divvy_partitions_free(no_list));
    EXPECT(DIVVY_BAD_HANDLE, divvy_partitions_free(bad_list));
    OK(divvy_partitions_free(list));
    EXPECT(DIVVY_BAD_HANDLE, divvy_partitions_free(list));
}

static void calculators(divvy_store store) {
    divvy_calculator calculator = {0}, out = {0};
    divvy_config config = {0};
    divvy_partitions list = {0};
    divvy_subscription subscription = {0};
    divvy_events events = {0};
    divvy_event event = {0};
    divvy_text text = {0};
    int64_t version = 77;
    int fd = 77, destroyed = 0;
    const char *keys[1] = {"twice"};

    EXPECT(DIVVY_NULL_ARGUMENT, divvy_calculator_new(no_config, store, NULL, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_calculator_new(no_config, no_store, &out, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_new(no_config, bad_store, &out, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_new(bad_config, store, &out, ERR));
    OK(divvy_config_new(&config, ERR));
    OK(divvy_config_set(config, "heartbeat_ttl", "0", ERR));
    OK(divvy_config_set(config, "restart_ratio", "7", ERR));
    EXPECT(DIVVY_INVALID_CONFIG, divvy_calculator_new(config, store, &out, ERR));
    CHECK(strstr(err, "heartbeat_ttl") != NULL && strstr(err, "restart_ratio") != NULL);
    OK(divvy_config_free(config));
    CHECK(out.id == 0);

    OK(divvy_calculator_new(no_config, store, &calculator, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_calculator_start(none, 1, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_start(bad, 1, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_calculator_start(calculator, -1, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_calculator_start(calculator, INT64_MIN, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_calculator_start(calculator, INT64_MAX, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_stop(bad, 1, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_calculator_stop(calculator, -1, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_free(bad, ERR));
    OK(divvy_calculator_free(none, ERR));
    CHECK(divvy_calculator_is_started(none) == DIVVY_NULL_ARGUMENT);
    CHECK(divvy_calculator_is_started(bad) == DIVVY_BAD_HANDLE);
    CHECK(divvy_calculator_get_state(none) == DIVVY_NULL_ARGUMENT);
    CHECK(divvy_calculator_get_state(bad) == DIVVY_BAD_HANDLE);
    CHECK(divvy_calculator_scaling_reason(bad) == DIVVY_BAD_HANDLE);
    CHECK(divvy_calculator_current_version(bad) == DIVVY_BAD_HANDLE);
    EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_trigger_rebalance(bad, 1, &version, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT,
           divvy_calculator_trigger_rebalance(calculator, -1, &version, ERR));
    EXPECT(DIVVY_NOT_RUNNING, divvy_calculator_trigger_rebalance(calculator, 1, &version, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_refresh(bad, 1, &version, ERR));
    EXPECT(DIVVY_NOT_RUNNING, divvy_calculator_refresh(calculator, 1, &version, ERR));
    CHECK(version == 77);
    OK(divvy_partitions_new(&list, ERR));
    OK(divvy_partitions_add(list, keys, 1, 1, ERR));
    OK(divvy_partitions_add(list, keys, 1, 1, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_calculator_set_partitions(calculator, list, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_set_partitions(bad, list, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_set_partitions(calculator, bad_list, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_calculator_set_partitions(calculator, no_list, ERR));
    OK(divvy_partitions_free(list));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_calculator_status_json(calculator, NULL, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_status_json(bad, &text, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_metrics(bad, &text, ERR));

    EXPECT(DIVVY_NULL_ARGUMENT, divvy_calculator_subscribe(calculator, DIVVY_FILTER_STATE, NULL,
                                                           &destroyed, on_destroy, &subscription, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_calculator_subscribe(calculator, DIVVY_FILTER_STATE, on_event,
                                                           &destroyed, on_destroy, NULL, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_calculator_subscribe(calculator, 9, on_event, &destroyed,
                                                              on_destroy, &subscription, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_subscribe(bad, DIVVY_FILTER_STATE, on_event,
                                                        &destroyed, on_destroy, &subscription, ERR));
    CHECK(destroyed == 0 && subscription.id == 0);
    OK(divvy_subscription_free(no_subscription, 1, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_subscription_free(bad_subscription, 1, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT,
           divvy_calculator_events(calculator, DIVVY_FILTER_STATE, NULL, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_calculator_events(calculator, 0, &events, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_events(bad, DIVVY_FILTER_STATE, &events, ERR));
    CHECK(events.id == 0);
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_events_poll(no_events, 0, &event, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_events_poll(bad_events, 0, &event, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_events_fd(bad_events, &fd, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_events_wake(bad_events, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_events_free(bad_events));
    OK(divvy_events_free(no_events));
    OK(divvy_calculator_events(calculator, DIVVY_FILTER_STATE, &events, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_events_poll(events, 0, NULL, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_events_poll(events, -2, &event, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_events_fd(events, NULL, ERR));
    CHECK(fd == 77 && event.id == 0);
    {   /* a handle of another kind */
        divvy_calculator wrong;
        wrong.id = events.id;
        CHECK(divvy_calculator_get_state(wrong) == DIVVY_BAD_HANDLE);
        EXPECT(DIVVY_BAD_HANDLE, divvy_calculator_free(wrong, ERR));
    }
    OK(divvy_calculator_free(calculator, ERR));
    CHECK(divvy_calculator_get_state(calculator) == DIVVY_BAD_HANDLE);
    OK(divvy_events_poll(events, 0, &event, ERR)); /* a queue may outlive its calculator */
    OK(divvy_event_free(event));
    EXPECT(DIVVY_CLOSED, divvy_events_poll(events, 0, &event, ERR));
    OK(divvy_events_free(events));
}

static int32_t campaign(void *userdata, const char *worker, int64_t timeout_ms, int64_t *lease_ms) {
    (void)userdata, (void)worker, (void)timeout_ms, (void)lease_ms;
    return DIVVY_OK;
}

static void manager_settings(divvy_store store) {
    divvy_config config = {0};
    divvy_manager out = {0};
    int destroyed = 0;
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_manager_new(no_config, store, NULL, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_manager_new(no_config, no_store, &out, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_manager_new(no_config, bad_store, &out, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_manager_new(bad_config, store, &out, ERR));
    OK(divvy_config_new(&config, ERR));
    EXPECT(DIVVY_INVALID_CONFIG, divvy_config_set(config, "outage_policy", "strikt", ERR));
    EXPECT(DIVVY_BAD_UTF8, divvy_config_set(config, "worker_id_prefix", "\xff", ERR));
    OK(divvy_config_set(config, "worker_id_prefix", "a b", ERR));
    OK(divvy_config_set(config, "worker_id_min", "200", ERR));
    OK(divvy_config_set(config, "worker_id_max", "99", ERR));
    EXPECT(DIVVY_INVALID_CONFIG, divvy_manager_new(config, store, &out, ERR));
    CHECK(strstr(err, "worker_id_prefix") != NULL && strstr(err, "worker_id_max") != NULL);
    EXPECT(DIVVY_NULL_ARGUMENT,
           divvy_config_set_election(no_config, campaign, NULL, &destroyed, on_destroy, ERR));
    EXPECT(DIVVY_BAD_HANDLE,
           divvy_config_set_election(bad_config, campaign, NULL, &destroyed, on_destroy, ERR));
    OK(divvy_config_free(config));
    CHECK(out.id == 0);
}

static void managers(divvy_store store) {
    divvy_manager manager = {0};
    divvy_subscription subscription = {0};
    divvy_events events = {0};
    divvy_assignment held = {0};
    divvy_text text = {0};
    int64_t version = 77;
    int destroyed = 0;

    OK(divvy_manager_new(no_config, store, &manager, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_manager_start(no_manager, 1, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_manager_start(bad_manager, 1, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_manager_start(manager, -1, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_manager_start(manager, INT64_MAX, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_manager_stop(bad_manager, DIVVY_DEPARTURE_LEAVE, 1, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_manager_stop(manager, 0, 1, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_manager_stop(manager, 3, 1, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_manager_stop(manager, DIVVY_DEPARTURE_RESTART, -1, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_manager_free(bad_manager, ERR));
    OK(divvy_manager_free(no_manager, ERR));
    CHECK(divvy_manager_is_started(no_manager) == DIVVY_NULL_ARGUMENT);
    CHECK(divvy_manager_is_started(bad_manager) == DIVVY_BAD_HANDLE);
    CHECK(divvy_manager_is_leader(bad_manager) == DIVVY_BAD_HANDLE);
    CHECK(divvy_manager_get_state(no_manager) == DIVVY_NULL_ARGUMENT);
    CHECK(divvy_manager_get_state(bad_manager) == DIVVY_BAD_HANDLE);
    EXPECT(DIVVY_BAD_HANDLE, divvy_manager_wait_state(bad_manager, 1, 1, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_manager_wait_state(manager, 0, 1, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_manager_wait_state(manager, 1, -1, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_manager_worker_id(manager, NULL, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_manager_worker_id(bad_manager, &text, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_manager_leader(manager, NULL, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_manager_leader(bad_manager, &text, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_manager_status_json(manager, NULL, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_manager_status_json(bad_manager, &text, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_manager_trigger_rebalance(bad_manager, 1, &version, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_manager_trigger_rebalance(manager, -1, &version, ERR));
    EXPECT(DIVVY_NOT_LEADER, divvy_manager_trigger_rebalance(manager, 1, &version, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_manager_refresh_partitions(bad_manager, 1, &version, ERR));
    EXPECT(DIVVY_NOT_LEADER, divvy_manager_refresh_partitions(manager, 1, &version, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_manager_set_partitions(bad_manager, no_list, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_manager_set_partitions(manager, no_list, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_manager_assignment(manager, NULL, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_manager_assignment(bad_manager, &held, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT,
           divvy_manager_subscribe(manager, DIVVY_MANAGER_FILTER_WORKER, NULL, &destroyed,
                                   on_destroy, &subscription, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_manager_subscribe(manager, 4, on_event, &destroyed,
                                                           on_destroy, &subscription, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_manager_events(manager, 1, NULL, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_manager_events(manager, 0, &events, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_manager_events(bad_manager, 1, &events, ERR));
    CHECK(version == 77 && held.id == 0 && text.id == 0 && events.id == 0);
    CHECK(destroyed == 0 && subscription.id == 0);

    OK(divvy_manager_assignment(manager, &held, ERR));
    CHECK(divvy_assignment_version(held) == 0 && divvy_assignment_term(held) == 0);
    CHECK(divvy_assignment_lifecycle(held, NULL)[0] == 0);
    CHECK(divvy_assignment_count(held, 0) == DIVVY_INVALID_ARGUMENT);
    CHECK(divvy_assignment_count(held, 4) == DIVVY_INVALID_ARGUMENT);
    CHECK(divvy_assignment_key_count(held, 4, 0) == DIVVY_INVALID_ARGUMENT);
    CHECK(divvy_assignment_key(held, 4, 0, 0, NULL) == NULL);
    CHECK(divvy_assignment_weight(held, 4, 0) == 0);
    CHECK(divvy_assignment_key(held, DIVVY_LIST_OWNED, (size_t)-1, (size_t)-1, NULL) == NULL);
    OK(divvy_assignment_free(held));
    OK(divvy_manager_free(manager, ERR));
}

static void assignments(void) {
    divvy_assignment out = {0};
    size_t length = 77;
    CHECK(divvy_assignment_version(no_assignment) == DIVVY_NULL_ARGUMENT);
    CHECK(divvy_assignment_version(bad_assignment) == DIVVY_BAD_HANDLE);
    CHECK(divvy_assignment_term(bad_assignment) == DIVVY_BAD_HANDLE);
    CHECK(divvy_assignment_lifecycle(bad_assignment, &length)[0] == 0 && length == 0);
    CHECK(divvy_assignment_json(bad_assignment, NULL)[0] == 0);
    CHECK(divvy_assignment_count(bad_assignment, DIVVY_LIST_OWNED) == DIVVY_BAD_HANDLE);
    CHECK(divvy_assignment_key_count(bad_assignment, 1, 0) == DIVVY_BAD_HANDLE);
    CHECK(divvy_assignment_key(bad_assignment, 1, 0, 0, &length) == NULL);
    CHECK(divvy_assignment_weight(bad_assignment, 1, 0) == 0);
    EXPECT(DIVVY_BAD_HANDLE, divvy_assignment_free(bad_assignment));
    OK(divvy_assignment_free(no_assignment));
    EXPECT(DIVVY_BAD_HANDLE, divvy_event_assignment(bad_event, &out, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_event_assignment(no_event, &out, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_event_assignment(bad_event, NULL, ERR));
    CHECK(divvy_event_is_leader(bad_event) == 0 && divvy_event_alert_level(no_event) == 0);
    CHECK(divvy_event_lasted_ms(bad_event) == 0 && out.id == 0);
}

static void accessors(void) {
    size_t length = 77;
    CHECK(divvy_event_get_kind(no_event) == DIVVY_NULL_ARGUMENT);
    CHECK(divvy_event_get_kind(bad_event) == DIVVY_BAD_HANDLE);
    CHECK(divvy_event_state(bad_event) == 0 && divvy_event_from_state(bad_event) == 0);
    CHECK(divvy_event_reason(bad_event) == 0 && divvy_event_version(bad_event) == 0);
    CHECK(divvy_event_time_ns(bad_event) == 0 && divvy_event_member_change(bad_event) == 0);
    CHECK(divvy_event_worker_count(bad_event) == 0 && divvy_event_partition_count(bad_event) == 0);
    CHECK(divvy_event_moved_count(bad_event) == 0 && divvy_event_missed_count(bad_event) == 0);
    CHECK(divvy_event_status(bad_event) == 0);
    CHECK(strcmp(divvy_event_worker(bad_event, &length), "") == 0 && length == 0);
    CHECK(strcmp(divvy_event_message(bad_event, NULL), "") == 0);
    CHECK(strcmp(divvy_event_json(no_event, NULL), "") == 0);
    CHECK(divvy_event_free(no_event) == DIVVY_OK);
    CHECK(divvy_event_free(bad_event) == DIVVY_BAD_HANDLE);
    CHECK(strcmp(divvy_text_data(bad_text, NULL), "") == 0);
    CHECK(divvy_text_free(no_text) == DIVVY_OK && divvy_text_free(bad_text) == DIVVY_BAD_HANDLE);
    CHECK(divvy_plan_input_worker_count(no_input) == DIVVY_NULL_ARGUMENT);
    CHECK(divvy_plan_input_partition_count(bad_input) == DIVVY_BAD_HANDLE);
    CHECK(divvy_plan_input_key_count(bad_input, 0) == DIVVY_BAD_HANDLE);
    CHECK(divvy_plan_input_worker(bad_input, 0, NULL) == NULL);
    CHECK(divvy_plan_input_key(bad_input, 0, 0, NULL) == NULL);
    CHECK(divvy_plan_input_weight(bad_input, 0) == 0);
    CHECK(divvy_plan_input_previous(bad_input, 0) == DIVVY_NO_WORKER);
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_log_set(9, NULL, NULL, NULL, ERR));
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_log_set(-1, NULL, NULL, NULL, ERR));
}

static void names(void) {
    int32_t number;
    size_t index;
    for (number = -300; number < 20; number++) {
        CHECK(divvy_status_name(number)[0] != 0);
        CHECK(divvy_calculator_state_name(number) && divvy_reason_name(number));
        CHECK(divvy_event_kind_name(number) && divvy_member_change_name(number));
    }
    for (index = 0; divvy_status_at(index) != 1; index++)
        CHECK(strncmp(divvy_status_name(divvy_status_at(index)), "DIVVY_", 6) == 0);
    CHECK(index > 20);
    CHECK(strcmp(divvy_status_name(DIVVY_TIMED_OUT), "DIVVY_TIMED_OUT") == 0);
    CHECK(strcmp(divvy_status_name(12345), "unknown") == 0);
    CHECK(divvy_status_is_retriable(DIVVY_UNAVAILABLE) && !divvy_status_is_retriable(0));
    EXPECT(DIVVY_ABI_MISMATCH, divvy_check_abi(DIVVY_ABI_VERSION + 1));
}

int main(void) {
    divvy_config config = new_config();
    divvy_store store = new_store(config);
    errors_are_written_to_fit();
    configs();
    stores(store);
    partition_lists();
    calculators(store);
    manager_settings(store);
    managers(store);
    assignments();
    accessors();
    names();
    OK(divvy_config_free(config));
    OK(divvy_store_free(store));
    return 0;
}
