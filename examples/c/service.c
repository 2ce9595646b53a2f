/* A complete worker service: it joins a fleet, works on the partitions that it is assigned, serves
 * health checks and metrics over HTTP, keeps working while the NATS server restarts, and leaves on
 * SIGINT or SIGTERM.
 *
 *     cc service.c $(pkg-config --cflags --libs divvy) -o service
 *     DIVVY_NATS_URL=nats://127.0.0.1:4222 LISTEN_PORT=8080 ./service
 *
 * Every setting can be given as an environment variable: heartbeat_ttl is DIVVY_HEARTBEAT_TTL.
 */
#include <divvy.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile sig_atomic_t stopping;

static void on_signal(int number) {
    (void)number;
    stopping = 1;
}

static void check(divvy_status status, const char *what, const char *err) {
    if (status == DIVVY_OK) return;
    fprintf(stderr, "%s: %s: %s\n", what, divvy_status_name(status), err);
    exit(1);
}

/* The partitions of the fleet. Every worker needs the same list, because each may lead. */
static int32_t list_tools(void *userdata, divvy_partitions list, int64_t timeout_ms) {
    char name[16];
    const char *keys[1];
    int number;
    (void)userdata;
    (void)timeout_ms;
    keys[0] = name;
    for (number = 0; number < 12; number++) {
        snprintf(name, sizeof name, "tool%03d", number);
        if (divvy_partitions_add(list, keys, 1, 100, NULL, 0) != DIVVY_OK) return -1;
    }
    return 0;
}

static void print_each(const char *verb, divvy_assignment change, int32_t list) {
    int64_t count = divvy_assignment_count(change, list), index;
    for (index = 0; index < count; index++)
        printf("%s %s\n", verb, divvy_assignment_key(change, list, (size_t)index, 0, NULL));
}

/* Runs on the thread dv-notify, one event at a time, in order. Stop what was removed first, then
 * start what was added. */
static void on_event(void *userdata, divvy_event event) {
    divvy_assignment change = {0};
    (void)userdata;
    if (divvy_event_get_kind(event) != DIVVY_EVENT_ASSIGNMENT) return;
    if (divvy_event_assignment(event, &change, NULL, 0) != DIVVY_OK) return;
    print_each("stop", change, DIVVY_LIST_REMOVED);
    print_each("start", change, DIVVY_LIST_ADDED);
    fflush(stdout);
    divvy_assignment_free(change);
}

static void reply(int client, const char *status, const char *body, size_t length) {
    char head[160];
    int size = snprintf(head, sizeof head,
                        "HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4\r\n"
                        "Content-Length: %lu\r\nConnection: close\r\n\r\n",
                        status, (unsigned long)length);
    if (send(client, head, (size_t)size, MSG_NOSIGNAL) < 0) return;
    while (length > 0) {
        ssize_t sent = send(client, body, length, MSG_NOSIGNAL);
        if (sent <= 0) return;
        body += sent;
        length -= (size_t)sent;
    }
}

static void reply_check(int client, int ok) {
    if (ok)
        reply(client, "200 OK", "ok\n", 3);
    else
        reply(client, "503 Service Unavailable", "not ready\n", 10);
}

/* /livez: the library works. /readyz: this worker serves an assignment. /metrics: Prometheus. */
static void answer(int client, divvy_manager manager) {
    char request[1024];
    ssize_t size = recv(client, request, sizeof request - 1, 0);
    divvy_text page = {0};
    size_t length = 0;
    const char *data;
    if (size <= 0) return;
    request[size] = 0;
    if (strncmp(request, "GET /livez ", 11) == 0) {
        reply_check(client, divvy_manager_is_live(manager) == 1);
    } else if (strncmp(request, "GET /readyz ", 12) == 0) {
        reply_check(client, divvy_manager_is_ready(manager) == 1);
    } else if (strncmp(request, "GET /metrics ", 13) == 0 &&
               divvy_manager_metrics(manager, &page, NULL, 0) == DIVVY_OK) {
        data = divvy_text_data(page, &length);
        reply(client, "200 OK", data, length);
        divvy_text_free(page);
    } else {
        reply(client, "404 Not Found", "not found\n", 10);
    }
}

static int listen_on(const char *port) {
    struct sockaddr_in address;
    int yes = 1, server = socket(AF_INET, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((unsigned short)atoi(port));
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(server, (struct sockaddr *)&address, sizeof address) != 0 || listen(server, 16) != 0) {
        fprintf(stderr, "cannot listen on port %s: %s\n", port, strerror(errno));
        exit(1);
    }
    return server;
}

static void serve(divvy_manager manager, int server) {
    struct pollfd ready;
    struct timeval limit = {1, 0};
    ready.fd = server;
    ready.events = POLLIN;
    while (!stopping) {
        int client;
        if (poll(&ready, 1, 200) <= 0) continue;
        client = accept(server, NULL, NULL);
        if (client < 0) continue;
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        answer(client, manager);
        close(client);
    }
}

int main(void) {
    divvy_config config = {0};
    divvy_store store = {0};
    divvy_manager manager = {0};
    divvy_subscription subscription = {0};
    struct sigaction action;
    char err[256] = "";
    const char *port = getenv("LISTEN_PORT");
    int server = listen_on(port ? port : "8080");

    check(divvy_check_abi(DIVVY_ABI_VERSION), "library", "header and library do not match");
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    check(divvy_config_new(&config, err, sizeof err), "config", err);
    check(divvy_config_set(config, "nats_url", "nats://127.0.0.1:4222", err, sizeof err), "config", err);
    check(divvy_config_set(config, "fleet", "tools", err, sizeof err), "config", err);
    check(divvy_config_merge_env(config, NULL, err, sizeof err), "environment", err);
    check(divvy_config_set_source(config, list_tools, NULL, NULL, err, sizeof err), "source", err);
    check(divvy_store_open(config, 10000, &store, err, sizeof err), "connect", err);
    check(divvy_manager_new(config, store, &manager, err, sizeof err), "manager", err);
    check(divvy_manager_subscribe(manager, DIVVY_MANAGER_FILTER_ASSIGNMENT, on_event, NULL, NULL,
                                  &subscription, err, sizeof err),
          "subscribe", err);
    check(divvy_manager_start(manager, 30000, err, sizeof err), "start", err);

    serve(manager, server);

    printf("stopping\n");
    fflush(stdout);
    /* Use DIVVY_DEPARTURE_RESTART when the process comes back at once: its partitions then stay in place. */
    check(divvy_manager_stop(manager, DIVVY_DEPARTURE_LEAVE, 10000, err, sizeof err), "stop", err);
    check(divvy_subscription_free(subscription, 1000, err, sizeof err), "unsubscribe", err);
    check(divvy_manager_free(manager, err, sizeof err), "free", err);
    divvy_config_free(config);
    divvy_store_free(store);
    close(server);
    return 0;
}
