/* A forked child: every call returns a status immediately, and the parent is not affected. */
#include <sys/wait.h>

#include "check.h"

static divvy_calculator calculator;
static divvy_manager manager;

static void child(divvy_store store, divvy_events events) {
    divvy_event event = {0};
    divvy_config config = {0};
    divvy_text text = {0};
    alarm(10); /* ends a hang */
    EXPECT(DIVVY_FORKED, divvy_calculator_trigger_rebalance(calculator, TIMEOUT, NULL, ERR));
    CHECK(strstr(err, "fork") != NULL);
    EXPECT(DIVVY_FORKED, divvy_calculator_start(calculator, TIMEOUT, ERR));
    EXPECT(DIVVY_FORKED, divvy_calculator_stop(calculator, TIMEOUT, ERR));
    EXPECT(DIVVY_FORKED, divvy_calculator_free(calculator, ERR));
    EXPECT(DIVVY_FORKED, divvy_manager_stop(manager, DIVVY_DEPARTURE_LEAVE, TIMEOUT, ERR));
    EXPECT(DIVVY_FORKED, divvy_manager_wait_state(manager, DIVVY_MANAGER_INIT, TIMEOUT, ERR));
    EXPECT(DIVVY_FORKED, divvy_manager_free(manager, ERR));
    CHECK(divvy_manager_get_state(manager) == DIVVY_FORKED);
    EXPECT(DIVVY_FORKED, divvy_events_poll(events, -1, &event, ERR));
    EXPECT(DIVVY_FORKED, divvy_events_free(events));
    EXPECT(DIVVY_FORKED, divvy_store_free(store));
    EXPECT(DIVVY_FORKED, divvy_config_new(&config, ERR));
    EXPECT(DIVVY_FORKED, divvy_calculator_status_json(calculator, &text, ERR));
    EXPECT(DIVVY_FORKED, divvy_log_set(0, NULL, NULL, NULL, ERR));
    CHECK(divvy_calculator_get_state(calculator) == DIVVY_FORKED);
    CHECK(strcmp(divvy_text_data(text, NULL), "") == 0);
    CHECK(divvy_version()[0] != 0);
    CHECK(strcmp(divvy_status_name(DIVVY_FORKED), "DIVVY_FORKED") == 0);
    _exit(0);
}

int main(void) {
    static const char *const MANAGED = "{\"worker_id_prefix\":\"member\",\"may_lead\":false,"
                                       "\"heartbeat_interval\":\"250ms\",\"cooldown\":\"50ms\"}";
    divvy_config config, managed;
    divvy_store store;
    divvy_events events = {0};
    divvy_partitions list;
    fleet workers;
    pid_t pid;
    int status = -1, round;

    /* A fork before the first handle affects neither process. */
    CHECK(divvy_version()[0] != 0);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        OK(divvy_config_new(&config, ERR));
        OK(divvy_config_free(config));
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);

    config = new_config();
    managed = new_config();
    /* A worker that never leads, in a fleet of members with their own heartbeats. */
    OK(divvy_config_merge_json(managed, MANAGED, strlen(MANAGED), ERR));
    store = new_store(config);
    list = new_partitions(4);
    fleet_start(&workers, store, 2);
    OK(divvy_calculator_new(config, store, &calculator, ERR));
    OK(divvy_calculator_set_partitions(calculator, list, ERR));
    OK(divvy_calculator_events(calculator, DIVVY_FILTER_STATE, &events, ERR));
    OK(divvy_calculator_start(calculator, TIMEOUT, ERR));
    OK(divvy_manager_new(managed, store, &manager, ERR));
    OK(divvy_manager_start(manager, TIMEOUT, ERR));
    for (round = 0; round < 20; round++) {
        pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) child(store, events);
        CHECK(waitpid(pid, &status, 0) == pid);
        if (status != 0) FAIL("the child ended with %d", status);
    }
    OK(divvy_calculator_trigger_rebalance(calculator, TIMEOUT, NULL, ERR));
    CHECK(divvy_manager_is_started(manager) == 1);
    OK(divvy_manager_free(manager, ERR));
    OK(divvy_calculator_free(calculator, ERR));
    OK(divvy_events_free(events));
    OK(divvy_partitions_free(list));
    OK(divvy_config_free(config));
    OK(divvy_config_free(managed));
    fleet_stop(&workers);
    OK(divvy_store_free(store));
    return 0;
}
