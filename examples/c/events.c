/* Runs a calculator and prints its events until SIGINT or SIGTERM.
 *
 *     cc events.c $(pkg-config --cflags --libs divvy) -o events
 *     ./events                                    an in-memory store with two workers
 *     DIVVY_NATS_URL=127.0.0.1:4222 ./events      a fleet on NATS
 *
 * Events arrive by callback; events_epoll.c uses epoll.
 */
#include <divvy.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char err[256];

static void check(divvy_status status, const char *what) {
    if (status == DIVVY_OK) return;
    fprintf(stderr, "%s: %s: %s\n", what, divvy_status_name(status), err);
    exit(1);
}

/* Runs on the thread dv-notify, one event at a time, in order. */
static void on_event(void *userdata, divvy_event event) {
    (void)userdata;
    printf("%s\n", divvy_event_json(event, NULL));
    fflush(stdout);
}

static divvy_store open_store(divvy_config config) {
    divvy_store store = {0};
    if (getenv("DIVVY_NATS_URL")) {
        check(divvy_store_open(config, 10000, &store, err, sizeof err), "connect");
        return store;
    }
    /* These workers send a single heartbeat, so it must not expire. */
    check(divvy_config_set(config, "heartbeat_ttl", "1h", err, sizeof err), "config");
    check(divvy_config_set(config, "store", "memory", err, sizeof err), "config");
    check(divvy_store_open(config, 0, &store, err, sizeof err), "store");
    check(divvy_store_ensure(store, DIVVY_BUCKET_HEARTBEAT, 0, 1000, err, sizeof err), "bucket");
    check(divvy_store_put(store, DIVVY_BUCKET_HEARTBEAT, "heartbeat.worker-0", "up", 2, 1000, err,
                          sizeof err), "heartbeat");
    check(divvy_store_put(store, DIVVY_BUCKET_HEARTBEAT, "heartbeat.worker-1", "up", 2, 1000, err,
                          sizeof err), "heartbeat");
    return store;
}

int main(void) {
    const char *work = "[{\"keys\":[\"tool001\",\"chamber1\"],\"weight\":100},"
                       "{\"keys\":[\"tool001\",\"chamber2\"]},{\"keys\":[\"tool002\",\"chamber1\"]}]";
    divvy_config config = {0};
    divvy_store store;
    divvy_partitions partitions = {0};
    divvy_calculator calculator = {0};
    divvy_subscription subscription = {0};
    sigset_t signals;
    int number;

    check(divvy_check_abi(DIVVY_ABI_VERSION), "library");
    /* Block the signals before any thread starts; sigwait below receives them. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);

    check(divvy_config_new(&config, err, sizeof err), "config");
    check(divvy_config_merge_env(config, NULL, err, sizeof err), "environment");
    store = open_store(config);
    check(divvy_calculator_new(config, store, &calculator, err, sizeof err), "calculator");
    check(divvy_partitions_new(&partitions, err, sizeof err), "partitions");
    check(divvy_partitions_add_json(partitions, work, strlen(work), err, sizeof err), "partitions");
    check(divvy_calculator_set_partitions(calculator, partitions, err, sizeof err), "partitions");
    divvy_partitions_free(partitions);

    check(divvy_calculator_subscribe(calculator, DIVVY_FILTER_STATE_AND_MEMBERS, on_event, NULL, NULL,
                                     &subscription, err, sizeof err), "subscribe");
    check(divvy_calculator_start(calculator, 30000, err, sizeof err), "start");

    sigwait(&signals, &number);
    printf("stopping: signal %d\n", number);
    check(divvy_calculator_stop(calculator, 10000, err, sizeof err), "stop");
    check(divvy_subscription_free(subscription, 1000, err, sizeof err), "unsubscribe");
    check(divvy_calculator_free(calculator, err, sizeof err), "free");
    divvy_config_free(config);
    divvy_store_free(store);
    return 0;
}
