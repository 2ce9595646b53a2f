/* A wake, or the end of a subscription, concurrent with an event: none may be lost or hang. */
#include "check.h"

/* One cycle takes a few hundred microseconds. */
#define CYCLE_MAX_MS 10000

static int cycles(void) {
    const char *wanted = getenv("DIVVY_TEST_CYCLES");
    return wanted ? atoi(wanted) * 20 : 20000;
}

typedef struct reader {
    divvy_events events;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int woken, is_over;
} reader;

static void *read_events(void *argument) {
    reader *self = (reader *)argument;
    for (;;) {
        divvy_event event = {0};
        char why[256];
        divvy_status status = divvy_events_poll(self->events, -1, &event, why, sizeof why);
        if (status == DIVVY_OK) {
            CHECK(divvy_event_free(event) == DIVVY_OK);
            continue;
        }
        CHECK(status == DIVVY_WOKEN || status == DIVVY_CLOSED);
        if (status == DIVVY_CLOSED) return NULL;
        pthread_mutex_lock(&self->lock);
        self->woken++;
        pthread_cond_signal(&self->changed);
        pthread_mutex_unlock(&self->lock);
    }
}

static void wait_for_wake(reader *self, int cycle) {
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += CYCLE_MAX_MS / 1000;
    pthread_mutex_lock(&self->lock);
    while (self->woken < cycle)
        if (pthread_cond_timedwait(&self->changed, &self->lock, &limit) != 0)
            FAIL("the wake of cycle %d was lost", cycle);
    CHECK(self->woken == cycle);
    pthread_mutex_unlock(&self->lock);
}

/* The events of a rebalance arrive while the call returns, so the wake coincides with the last one. */
static void wake_in_cycles(divvy_calculator calculator) {
    reader self;
    pthread_t thread;
    int cycle, count = cycles();
    memset(&self, 0, sizeof self);
    pthread_mutex_init(&self.lock, NULL);
    pthread_cond_init(&self.changed, NULL);
    OK(divvy_calculator_events(calculator, DIVVY_FILTER_STATE, &self.events, ERR));
    CHECK(pthread_create(&thread, NULL, read_events, &self) == 0);
    for (cycle = 1; cycle <= count; cycle++) {
        OK(divvy_calculator_trigger_rebalance(calculator, CYCLE_MAX_MS, NULL, ERR));
        OK(divvy_events_wake(self.events, ERR));
        wait_for_wake(&self, cycle);
    }
    OK(divvy_events_free(self.events));
    pthread_join(thread, NULL);
    pthread_cond_destroy(&self.changed);
    pthread_mutex_destroy(&self.lock);
}

typedef struct owned {
    int calls;
} owned;

static int destroyed;

static void on_event(void *userdata, divvy_event event) {
    (void)event;
    ((owned *)userdata)->calls++; /* after its end: a use after free, for the sanitizers */
}

static void on_destroy(void *userdata) {
    __atomic_add_fetch(&destroyed, 1, __ATOMIC_SEQ_CST);
    free(userdata);
}

static void unsubscribe_in_cycles(divvy_calculator calculator) {
    int cycle, count = cycles();
    for (cycle = 1; cycle <= count; cycle++) {
        divvy_subscription subscription = {0};
        owned *userdata = (owned *)calloc(1, sizeof *userdata);
        OK(divvy_calculator_subscribe(calculator, DIVVY_FILTER_STATE, on_event, userdata,
                                      on_destroy, &subscription, ERR));
        OK(divvy_calculator_trigger_rebalance(calculator, CYCLE_MAX_MS, NULL, ERR));
        OK(divvy_subscription_free(subscription, CYCLE_MAX_MS, ERR));
        CHECK(__atomic_load_n(&destroyed, __ATOMIC_SEQ_CST) == cycle);
    }
}

int main(void) {
    divvy_config config = new_config();
    divvy_store store = new_store(config);
    divvy_calculator calculator = {0};
    divvy_partitions list = new_partitions(1);
    fleet workers;
    fleet_start(&workers, store, 1);
    OK(divvy_config_set(config, "cooldown", "1ms", ERR));
    OK(divvy_calculator_new(config, store, &calculator, ERR));
    OK(divvy_calculator_set_partitions(calculator, list, ERR));
    OK(divvy_calculator_start(calculator, TIMEOUT, ERR));
    WAIT_UNTIL(held(store, 0) == 1);

    wake_in_cycles(calculator);
    unsubscribe_in_cycles(calculator);

    OK(divvy_calculator_stop(calculator, TIMEOUT, ERR));
    OK(divvy_calculator_free(calculator, ERR));
    fleet_stop(&workers);
    OK(divvy_partitions_free(list));
    OK(divvy_store_free(store));
    OK(divvy_config_free(config));
    return 0;
}
