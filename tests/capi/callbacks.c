/* Calls from inside callbacks, and callbacks at the worst moments. */
#include "check.h"

static divvy_calculator calculator;
static divvy_subscription own, other;
static volatile int calls, others, destroyed, deadlocks, is_inside, may_leave;

static void count_destroy(void *userdata) {
    CHECK(userdata == &calls);
    __sync_fetch_and_add(&destroyed, 1);
}

static void on_other(void *userdata, divvy_event event) {
    (void)userdata, (void)event;
    __sync_fetch_and_add(&others, 1);
}

/* Every call is allowed, except those that would wait for this thread. */
static void on_event(void *userdata, divvy_event event) {
    divvy_text text = {0};
    divvy_events events = {0};
    divvy_event first = {0};
    char why[256];
    CHECK(userdata == &calls);
    CHECK(divvy_event_get_kind(event) > 0);
    if (__sync_fetch_and_add(&calls, 1) > 0) return;
    CHECK(divvy_calculator_get_state(calculator) > 0);
    CHECK(divvy_calculator_status_json(calculator, &text, why, sizeof why) == DIVVY_OK);
    CHECK(divvy_text_free(text) == DIVVY_OK);
    CHECK(divvy_calculator_events(calculator, DIVVY_FILTER_STATE, &events, why, sizeof why) == 0);
    CHECK(divvy_events_poll(events, 0, &first, why, sizeof why) == DIVVY_OK);
    CHECK(divvy_event_free(first) == DIVVY_OK);
    CHECK(divvy_events_free(events) == DIVVY_OK);
    CHECK(divvy_calculator_stop(calculator, 1000, why, sizeof why) == DIVVY_WOULD_DEADLOCK);
    CHECK(divvy_calculator_free(calculator, why, sizeof why) == DIVVY_WOULD_DEADLOCK);
    CHECK(divvy_calculator_is_started(calculator) >= 0); /* the handle is still valid */
    CHECK(divvy_calculator_trigger_rebalance(calculator, TIMEOUT, NULL, why, sizeof why) == 0);
    CHECK(divvy_subscription_free(other, 1000, why, sizeof why) == DIVVY_OK);
    deadlocks++;
}

static void on_last(void *userdata, divvy_event event) {
    char why[256];
    (void)event;
    CHECK(userdata == &calls);
    __sync_fetch_and_add(&calls, 1);
    CHECK(divvy_subscription_free(own, 1000, why, sizeof why) == DIVVY_OK); /* ends itself */
}

static void on_slow(void *userdata, divvy_event event) {
    (void)userdata, (void)event;
    is_inside = 1;
    while (!may_leave) nap_ms(1);
}

int main(void) {
    divvy_config config = new_config();
    divvy_store store = new_store(config);
    divvy_partitions list = new_partitions(4);
    divvy_subscription slow = {0};
    fleet workers;
    fleet_start(&workers, store, 2);
    OK(divvy_calculator_new(config, store, &calculator, ERR));
    OK(divvy_calculator_set_partitions(calculator, list, ERR));
    OK(divvy_calculator_start(calculator, TIMEOUT, ERR));
    WAIT_UNTIL(held(store, 0) == 2);

    OK(divvy_calculator_subscribe(calculator, DIVVY_FILTER_STATE, on_other, NULL, NULL, &other, ERR));
    WAIT_UNTIL(others > 0);
    OK(divvy_calculator_subscribe(calculator, DIVVY_FILTER_STATE, on_event, (void *)&calls,
                                  count_destroy, &own, ERR));
    WAIT_UNTIL(deadlocks == 1 && calls > 3);
    EXPECT(DIVVY_BAD_HANDLE, divvy_subscription_free(other, 1000, ERR));
    OK(divvy_subscription_free(own, TIMEOUT, ERR));
    CHECK(destroyed == 1); /* after unsubscribe has returned OK, userdata is no longer used */
    calls = 0;
    OK(divvy_calculator_trigger_rebalance(calculator, TIMEOUT, NULL, ERR));
    nap_ms(30);
    CHECK(calls == 0);

    OK(divvy_calculator_subscribe(calculator, DIVVY_FILTER_STATE, on_last, (void *)&calls,
                                  count_destroy, &own, ERR));
    WAIT_UNTIL(destroyed == 2);
    CHECK(calls == 1);
    EXPECT(DIVVY_BAD_HANDLE, divvy_subscription_free(own, 1000, ERR));

    /* A callback that does not return: unsubscribe and stop report it and can be repeated. */
    OK(divvy_calculator_subscribe(calculator, DIVVY_FILTER_STATE, on_slow, NULL, NULL, &slow, ERR));
    WAIT_UNTIL(is_inside);
    EXPECT(DIVVY_TIMED_OUT, divvy_subscription_free(slow, 20, ERR));
    /* On a slow machine the other busy threads are named first. */
    WAIT_UNTIL(divvy_calculator_stop(calculator, 50, ERR) == DIVVY_TIMED_OUT &&
               strstr(err, "dv-notify") != NULL);
    EXPECT(DIVVY_TIMED_OUT, divvy_subscription_free(slow, 0, ERR));
    may_leave = 1;
    OK(divvy_subscription_free(slow, TIMEOUT, ERR));
    OK(divvy_calculator_stop(calculator, TIMEOUT, ERR));
    OK(divvy_calculator_free(calculator, ERR));
    OK(divvy_partitions_free(list));
    OK(divvy_config_free(config));
    fleet_stop(&workers);
    OK(divvy_store_free(store));
    return 0;
}
