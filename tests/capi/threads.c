/* 64 threads use and free the same handles concurrently. */
#include "check.h"

#define THREADS 64

static divvy_config config;
static divvy_store store;
static divvy_calculator calculator;
static divvy_events events;
static volatile int is_over, freed, reads;

static void on_event(void *userdata, divvy_event event) { (void)userdata, (void)event; }

static int is_expected(divvy_status status) {
    return status == DIVVY_OK || status == DIVVY_BAD_HANDLE || status == DIVVY_TIMED_OUT ||
           status == DIVVY_CLOSED || status == DIVVY_WOKEN || status == DIVVY_NOT_RUNNING ||
           status == DIVVY_ALREADY_STARTED || status == DIVVY_NO_WORKERS || status == DIVVY_FENCED ||
           status == DIVVY_CONFLICT;
}

static void *use(void *argument) {
    size_t seed = (size_t)argument;
    char why[256] = "";
    while (!is_over) {
        divvy_event event = {0};
        divvy_text text = {0};
        divvy_subscription subscription = {0};
        divvy_status status = DIVVY_OK;
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        switch ((seed >> 33) % 9) {
        case 0: status = divvy_calculator_trigger_rebalance(calculator, 50, NULL, why, sizeof why); break;
        case 1: status = divvy_calculator_status_json(calculator, &text, why, sizeof why); break;
        case 2: status = divvy_events_poll(events, 1, &event, why, sizeof why); break;
        case 3: status = divvy_events_wake(events, why, sizeof why); break;
        case 4:
            status = divvy_calculator_subscribe(calculator, DIVVY_FILTER_STATE, on_event, NULL, NULL,
                                                &subscription, why, sizeof why);
            break;
        case 5: status = divvy_calculator_refresh(calculator, 20, NULL, why, sizeof why); break;
        case 6:
            if ((seed >> 40) % 50 == 0) status = divvy_calculator_stop(calculator, TIMEOUT, why, sizeof why);
            break;
        case 7: status = divvy_calculator_start(calculator, TIMEOUT, why, sizeof why); break;
        default: CHECK(divvy_calculator_get_state(calculator) != 0); break;
        }
        if (!is_expected(status)) FAIL("%s: %s", divvy_status_name(status), why);
        if (text.id) CHECK(divvy_text_free(text) == DIVVY_OK);
        if (event.id) CHECK(divvy_event_free(event) == DIVVY_OK);
        if (subscription.id) CHECK(divvy_subscription_free(subscription, TIMEOUT, why, sizeof why) == DIVVY_OK);
        __sync_fetch_and_add(&reads, 1);
    }
    if (divvy_calculator_free(calculator, why, sizeof why) == DIVVY_OK)
        __sync_fetch_and_add(&freed, 1);
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    divvy_partitions list = new_partitions(16);
    fleet workers;
    size_t index;
    config = new_config();
    store = new_store(config);
    fleet_start(&workers, store, 2);
    OK(divvy_calculator_new(config, store, &calculator, ERR));
    OK(divvy_calculator_set_partitions(calculator, list, ERR));
    OK(divvy_calculator_events(calculator, DIVVY_FILTER_STATE, &events, ERR));
    for (index = 0; index < THREADS; index++)
        CHECK(pthread_create(&threads[index], NULL, use, (void *)(index + 1)) == 0);
    nap_ms(1500);
    is_over = 1;
    for (index = 0; index < THREADS; index++) pthread_join(threads[index], NULL);
    CHECK(freed == 1); /* by exactly one thread */
    CHECK(reads > THREADS);
    OK(divvy_events_free(events));
    OK(divvy_partitions_free(list));
    OK(divvy_config_free(config));
    fleet_stop(&workers);
    OK(divvy_store_free(store));
    return 0;
}
