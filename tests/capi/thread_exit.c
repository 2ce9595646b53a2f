/* A host may call the library while a thread ends, even from a key destructor that sets its key again.
 * The thread-local values, including those of the library, are destroyed by then. */
#include "check.h"

#include <limits.h>

static pthread_key_t key;
static divvy_calculator calculator;
static int rounds, events_seen;

static void on_event(void *userdata, divvy_event event) {
    (void)userdata;
    if (divvy_event_get_kind(event) > 0) __atomic_add_fetch(&events_seen, 1, __ATOMIC_SEQ_CST);
}

/* Every kind of call: one that waits for another thread, one that locks, one that fails with a
 * message, and one that waits for a callback. */
static void use_everything(void) {
    char why[512];
    divvy_subscription subscription = {0};
    divvy_events events = {0};
    divvy_event event = {0};
    divvy_text text = {0};
    divvy_cancel cancel = {0}, none = {0};
#define FINE(call) CHECK((call) == DIVVY_OK)
    FINE(divvy_calculator_subscribe(calculator, DIVVY_FILTER_STATE, on_event, NULL, NULL,
                                       &subscription, why, sizeof why));
    FINE(divvy_calculator_events(calculator, DIVVY_FILTER_STATE, &events, why, sizeof why));
    FINE(divvy_calculator_trigger_rebalance(calculator, TIMEOUT, NULL, why, sizeof why));
    FINE(divvy_events_poll(events, TIMEOUT, &event, why, sizeof why));
    FINE(divvy_event_free(event));
    CHECK(divvy_calculator_start(calculator, TIMEOUT, why, sizeof why) == DIVVY_ALREADY_STARTED);
    FINE(divvy_calculator_status_json(calculator, &text, why, sizeof why));
    FINE(divvy_text_free(text));
    FINE(divvy_cancel_new(&cancel, why, sizeof why));
    FINE(divvy_cancel_use(cancel, why, sizeof why));
    FINE(divvy_cancel_use(none, why, sizeof why));
    FINE(divvy_cancel_free(cancel));
    CHECK(divvy_callback_set_error("x", why, sizeof why) == DIVVY_NOT_RUNNING);
    FINE(divvy_events_free(events));
    FINE(divvy_subscription_free(subscription, TIMEOUT, why, sizeof why));
    FINE(divvy_calculator_stop(calculator, TIMEOUT, why, sizeof why));
    FINE(divvy_calculator_start(calculator, TIMEOUT, why, sizeof why));
}

static void on_thread_exit(void *value) {
    int round = ++rounds;
    /* As often as the system calls the destructor. */
    CHECK(pthread_setspecific(key, value) == 0);
    CHECK(round <= 2 * PTHREAD_DESTRUCTOR_ITERATIONS);
    use_everything();
}

static void *that_has_used_it(void *argument) {
    (void)argument;
    use_everything();
    CHECK(pthread_setspecific(key, &key) == 0);
    return NULL;
}

int main(void) {
    divvy_config config = new_config();
    divvy_store store = new_store(config);
    divvy_partitions list = new_partitions(2);
    pthread_t thread;
    fleet workers;
    CHECK(pthread_key_create(&key, on_thread_exit) == 0);
    fleet_start(&workers, store, 1);
    OK(divvy_calculator_new(config, store, &calculator, ERR));
    OK(divvy_calculator_set_partitions(calculator, list, ERR));
    OK(divvy_calculator_start(calculator, TIMEOUT, ERR));
    CHECK(pthread_create(&thread, NULL, that_has_used_it, NULL) == 0);
    pthread_join(thread, NULL);
    CHECK(rounds >= PTHREAD_DESTRUCTOR_ITERATIONS);
    CHECK(__atomic_load_n(&events_seen, __ATOMIC_SEQ_CST) > 0);
    OK(divvy_calculator_free(calculator, ERR));
    fleet_stop(&workers);
    OK(divvy_partitions_free(list));
    OK(divvy_store_free(store));
    OK(divvy_config_free(config));
    return 0;
}
