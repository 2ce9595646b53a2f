/* By callback, by poll and by descriptor: the same events in the same order. */
#include <poll.h>

#include "check.h"

#define MOST 4096

typedef struct record {
    char *lines[MOST];
    volatile int count;
    volatile int destroyed;
    pthread_mutex_t lock;
} record;

static void note(record *self, divvy_event event) {
    size_t length = 0;
    const char *json = divvy_event_json(event, &length);
    CHECK(length == strlen(json));
    pthread_mutex_lock(&self->lock);
    CHECK(self->count < MOST);
    self->lines[self->count] = (char *)malloc(length + 1);
    memcpy(self->lines[self->count], json, length + 1);
    self->count++;
    pthread_mutex_unlock(&self->lock);
}

static void on_event(void *userdata, divvy_event event) { note((record *)userdata, event); }

static void on_destroy(void *userdata) { ((record *)userdata)->destroyed++; }

static void *by_poll(void *argument) {
    void **both = (void **)argument;
    divvy_events events = *(divvy_events *)both[0];
    for (;;) {
        divvy_event event = {0};
        char why[256];
        divvy_status status = divvy_events_poll(events, -1, &event, why, sizeof why);
        if (status == DIVVY_CLOSED) return NULL;
        CHECK(status == DIVVY_OK);
        note((record *)both[1], event);
        CHECK(divvy_event_free(event) == DIVVY_OK);
        CHECK(divvy_event_free(event) == DIVVY_BAD_HANDLE);
        CHECK(divvy_event_get_kind(event) == DIVVY_BAD_HANDLE);
    }
}

static void *by_fd(void *argument) {
    void **both = (void **)argument;
    divvy_events events = *(divvy_events *)both[0];
    struct pollfd ready;
    int fd = -1, again = -1;
    char why[256];
    CHECK(divvy_events_fd(events, &fd, why, sizeof why) == DIVVY_OK);
    CHECK(divvy_events_fd(events, &again, why, sizeof why) == DIVVY_OK && fd == again);
    ready.fd = fd;
    ready.events = POLLIN;
    for (;;) {
        divvy_event event = {0};
        divvy_status status;
        CHECK(poll(&ready, 1, TIMEOUT) == 1);
        status = divvy_events_poll(events, 0, &event, why, sizeof why);
        if (status == DIVVY_CLOSED) return NULL;
        /* Readable means that an event is queued: level-triggered, and this is the only reader. */
        CHECK(status == DIVVY_OK);
        note((record *)both[1], event);
        CHECK(divvy_event_free(event) == DIVVY_OK);
    }
}

static void free_record(record *self) {
    int index;
    for (index = 0; index < self->count; index++) free(self->lines[index]);
}

static void wake_and_close(divvy_calculator calculator) {
    divvy_events events = {0};
    divvy_event event = {0};
    struct pollfd ready;
    int fd = -1;
    OK(divvy_calculator_events(calculator, DIVVY_FILTER_STATE, &events, ERR));
    OK(divvy_events_fd(events, &fd, ERR));
    ready.fd = fd;
    ready.events = POLLIN;
    CHECK(poll(&ready, 1, 0) == 1); /* the current state */
    OK(divvy_events_poll(events, 0, &event, ERR));
    CHECK(divvy_event_get_kind(event) == DIVVY_EVENT_CALCULATOR_STATE);
    CHECK(divvy_event_state(event) == divvy_event_from_state(event));
    OK(divvy_event_free(event));
    CHECK(poll(&ready, 1, 0) == 0);
    EXPECT(DIVVY_TIMED_OUT, divvy_events_poll(events, 0, &event, ERR));
    EXPECT(DIVVY_TIMED_OUT, divvy_events_poll(events, 10, &event, ERR));
    OK(divvy_events_wake(events, ERR)); /* ends the next wait */
    CHECK(poll(&ready, 1, 0) == 1);
    EXPECT(DIVVY_WOKEN, divvy_events_poll(events, -1, &event, ERR));
    CHECK(poll(&ready, 1, 0) == 0);
    EXPECT(DIVVY_TIMED_OUT, divvy_events_poll(events, 0, &event, ERR));
    OK(divvy_events_free(events));
    EXPECT(DIVVY_BAD_HANDLE, divvy_events_free(events));
    EXPECT(DIVVY_BAD_HANDLE, divvy_events_poll(events, 0, &event, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_events_wake(events, ERR));
}

int main(void) {
    divvy_config config = new_config();
    divvy_store store = new_store(config);
    divvy_calculator calculator = {0};
    divvy_partitions list = new_partitions(8);
    divvy_subscription subscription = {0};
    divvy_events polled = {0}, watched = {0};
    record called, read, seen;
    void *poll_arguments[2], *fd_arguments[2];
    pthread_t poller, watcher;
    fleet workers;
    int index;

    memset(&called, 0, sizeof called);
    memset(&read, 0, sizeof read);
    memset(&seen, 0, sizeof seen);
    pthread_mutex_init(&called.lock, NULL);
    pthread_mutex_init(&read.lock, NULL);
    pthread_mutex_init(&seen.lock, NULL);
    fleet_start(&workers, store, 2);
    OK(divvy_calculator_new(config, store, &calculator, ERR));
    OK(divvy_calculator_set_partitions(calculator, list, ERR));
    OK(divvy_calculator_subscribe(calculator, DIVVY_FILTER_STATE_AND_MEMBERS, on_event, &called,
                                  on_destroy, &subscription, ERR));
    OK(divvy_calculator_events(calculator, DIVVY_FILTER_STATE_AND_MEMBERS, &polled, ERR));
    OK(divvy_calculator_events(calculator, DIVVY_FILTER_STATE_AND_MEMBERS, &watched, ERR));
    poll_arguments[0] = &polled;
    poll_arguments[1] = &read;
    fd_arguments[0] = &watched;
    fd_arguments[1] = &seen;
    CHECK(pthread_create(&poller, NULL, by_poll, poll_arguments) == 0);
    CHECK(pthread_create(&watcher, NULL, by_fd, fd_arguments) == 0);

    wake_and_close(calculator);
    OK(divvy_calculator_start(calculator, TIMEOUT, ERR));
    WAIT_UNTIL(held(store, 0) == 4);
    fleet_resize(&workers, 4);
    WAIT_UNTIL(held(store, 0) == 2);
    for (index = 0; index < 20; index++)
        OK(divvy_calculator_trigger_rebalance(calculator, TIMEOUT, NULL, ERR));
    OK(divvy_calculator_stop(calculator, TIMEOUT, ERR));
    CHECK(called.destroyed == 1); /* before stop returned */
    pthread_join(poller, NULL);
    pthread_join(watcher, NULL);

    CHECK(called.count == read.count && read.count == seen.count);
    CHECK(called.count > 20 * 3);
    for (index = 0; index < called.count; index++) {
        CHECK(same_except_time(called.lines[index], read.lines[index]));
        CHECK(same_except_time(read.lines[index], seen.lines[index]));
        if (index == 0) continue; /* the current state */
        CHECK(strcmp(called.lines[index], read.lines[index]) == 0);
        CHECK(strcmp(read.lines[index], seen.lines[index]) == 0);
    }
    OK(divvy_subscription_free(subscription, TIMEOUT, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_subscription_free(subscription, TIMEOUT, ERR));
    CHECK(called.destroyed == 1);
    OK(divvy_events_free(polled));
    OK(divvy_events_free(watched));
    OK(divvy_calculator_free(calculator, ERR));
    OK(divvy_partitions_free(list));
    OK(divvy_config_free(config));
    fleet_stop(&workers);
    OK(divvy_store_free(store));
    free_record(&called);
    free_record(&read);
    free_record(&seen);
    return 0;
}
