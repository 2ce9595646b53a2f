/* A worker: joins a fleet, prints its assignment changes, and leaves on SIGINT or SIGTERM.
 *
 *     cc worker.c $(pkg-config --cflags --libs divvy) -o worker
 *     ./worker                                    alone, on an in-memory store
 *     DIVVY_NATS_URL=127.0.0.1:4222 DIVVY_FLEET=tools ./worker   one worker of a fleet
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

static void print_list(const char *what, divvy_assignment assignment, int32_t list) {
    int64_t count = divvy_assignment_count(assignment, list), index;
    for (index = 0; index < count; index++)
        printf("  %s %s/%s\n", what, divvy_assignment_key(assignment, list, (size_t)index, 0, NULL),
               divvy_assignment_key(assignment, list, (size_t)index, 1, NULL));
}

/* Runs on the thread dv-notify, one event at a time, in order. */
static void on_event(void *userdata, divvy_event event) {
    divvy_assignment change = {0};
    (void)userdata;
    printf("%s\n", divvy_event_json(event, NULL));
    if (divvy_event_get_kind(event) == DIVVY_EVENT_ASSIGNMENT &&
        divvy_event_assignment(event, &change, NULL, 0) == DIVVY_OK) {
        print_list("start", change, DIVVY_LIST_ADDED);
        print_list("stop ", change, DIVVY_LIST_REMOVED);
        divvy_assignment_free(change);
    }
    fflush(stdout);
}

/* The partitions of the fleet. Every worker needs the same list, because each may lead. */
static int32_t list_tools(void *userdata, divvy_partitions partitions, int64_t timeout_ms) {
    const char *tools = "[{\"keys\":[\"tool001\",\"chamber1\"],\"weight\":100},"
                        "{\"keys\":[\"tool001\",\"chamber2\"]},{\"keys\":[\"tool002\",\"chamber1\"]}]";
    (void)userdata;
    (void)timeout_ms;
    return divvy_partitions_add_json(partitions, tools, strlen(tools), NULL, 0);
}

int main(void) {
    divvy_config config = {0};
    divvy_store store = {0};
    divvy_manager manager = {0};
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
    check(divvy_config_set_source(config, list_tools, NULL, NULL, err, sizeof err), "source");
    if (!getenv("DIVVY_NATS_URL"))
        check(divvy_config_set(config, "store", "memory", err, sizeof err), "config");
    check(divvy_store_open(config, 10000, &store, err, sizeof err), "store");
    check(divvy_manager_new(config, store, &manager, err, sizeof err), "manager");
    check(divvy_manager_subscribe(manager, DIVVY_MANAGER_FILTER_WORKER, on_event, NULL, NULL,
                                  &subscription, err, sizeof err), "subscribe");
    check(divvy_manager_start(manager, 30000, err, sizeof err), "start");

    sigwait(&signals, &number);
    printf("stopping: signal %d\n", number);
    /* Use DIVVY_DEPARTURE_RESTART when the process comes back at once: nothing moves then. */
    check(divvy_manager_stop(manager, DIVVY_DEPARTURE_LEAVE, 10000, err, sizeof err), "stop");
    check(divvy_subscription_free(subscription, 1000, err, sizeof err), "unsubscribe");
    check(divvy_manager_free(manager, err, sizeof err), "free");
    divvy_config_free(config);
    divvy_store_free(store);
    return 0;
}
