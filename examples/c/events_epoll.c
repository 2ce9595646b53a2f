/* Runs a calculator and prints its events until SIGINT or SIGTERM.
 *
 *     cc events_epoll.c $(pkg-config --cflags --libs divvy) -o events_epoll
 *     ./events_epoll                                  an in-memory store with two workers
 *     DIVVY_NATS_URL=127.0.0.1:4222 ./events_epoll    a fleet on NATS
 *
 * One thread waits for events and signals with epoll. Linux only; events.c uses a callback.
 */
#include <divvy.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

static char err[256];

static void check(divvy_status status, const char *what) {
    if (status == DIVVY_OK) return;
    fprintf(stderr, "%s: %s: %s\n", what, divvy_status_name(status), err);
    exit(1);
}

/* Prints all queued events; returns whether more may follow. */
static int drain(divvy_events events) {
    for (;;) {
        divvy_event event = {0};
        divvy_status status = divvy_events_poll(events, 0, &event, err, sizeof err);
        if (status == DIVVY_TIMED_OUT) return 1;
        if (status == DIVVY_CLOSED) return 0;
        check(status, "poll");
        printf("%s\n", divvy_event_json(event, NULL));
        fflush(stdout);
        divvy_event_free(event);
    }
}

static void watch(int epoll, int fd) {
    struct epoll_event wanted;
    memset(&wanted, 0, sizeof wanted);
    wanted.events = EPOLLIN;
    wanted.data.fd = fd;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted) != 0) {
        perror("epoll_ctl");
        exit(1);
    }
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
    divvy_events events = {0};
    sigset_t signals;
    int epoll, on_events = -1, on_signal;

    check(divvy_check_abi(DIVVY_ABI_VERSION), "library");
    /* Block the signals before any thread starts; the descriptor below receives them. */
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

    check(divvy_calculator_events(calculator, DIVVY_FILTER_STATE_AND_MEMBERS, &events, err,
                                  sizeof err), "events");
    check(divvy_events_fd(events, &on_events, err, sizeof err), "descriptor");
    on_signal = signalfd(-1, &signals, SFD_CLOEXEC);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(epoll, on_events);
    watch(epoll, on_signal);
    check(divvy_calculator_start(calculator, 30000, err, sizeof err), "start");

    for (;;) {
        struct epoll_event ready;
        if (epoll_wait(epoll, &ready, 1, -1) < 1) continue;
        if (ready.data.fd == on_signal) break;
        if (!drain(events)) break;
    }
    printf("stopping\n");
    check(divvy_calculator_stop(calculator, 10000, err, sizeof err), "stop");
    drain(events); /* events up to the end */
    close(epoll); /* before the descriptor in it is closed */
    close(on_signal);
    check(divvy_events_free(events), "events");
    check(divvy_calculator_free(calculator, err, sizeof err), "free");
    divvy_config_free(config);
    divvy_store_free(store);
    return 0;
}
