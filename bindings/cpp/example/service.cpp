// A complete worker service: it joins a fleet, works on the partitions that it is assigned, serves
// health checks and metrics over HTTP, keeps working while the NATS server restarts, and leaves on
// SIGINT or SIGTERM.
//
//     c++ -std=c++11 service.cpp $(pkg-config --cflags --libs divvy) -o service
//     DIVVY_NATS_URL=nats://127.0.0.1:4222 LISTEN_PORT=8080 ./service
//
// Every setting can be given as an environment variable: heartbeat_ttl is DIVVY_HEARTBEAT_TTL.
#include <divvy.hpp>

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

using std::chrono::seconds;

static volatile sig_atomic_t stopping;

static void on_signal(int) { stopping = 1; }

// The partitions of the fleet. Every worker needs the same list, because each may lead.
static void list_tools(divvy::partition_sink &tools, divvy::milliseconds) {
    for (int number = 0; number < 12; ++number) {
        char name[16];
        std::snprintf(name, sizeof name, "tool%03d", number);
        tools.add({name}, 100);
    }
}

// Runs on the thread dv-notify, one event at a time, in order.
static void on_event(const divvy::event &event) {
    if (event.kind() != DIVVY_EVENT_ASSIGNMENT) return;
    const divvy::assignment change = event.assignment();
    for (const divvy::partition &tool : change.partitions(DIVVY_LIST_REMOVED))
        std::printf("stop %s\n", tool.keys.at(0).c_str());
    for (const divvy::partition &tool : change.partitions(DIVVY_LIST_ADDED))
        std::printf("start %s\n", tool.keys.at(0).c_str());
    std::fflush(stdout);
}

static std::string response(const char *status, const std::string &body) {
    return std::string("HTTP/1.1 ") + status + "\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: " +
           std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" + body;
}

static std::string checked(bool ok) {
    return ok ? response("200 OK", "ok\n") : response("503 Service Unavailable", "not ready\n");
}

// /livez: the library works. /readyz: this worker serves an assignment. /metrics: Prometheus.
static std::string answer(const std::string &request, const divvy::manager &manager) {
    if (request.compare(0, 11, "GET /livez ") == 0) return checked(manager.is_live());
    if (request.compare(0, 12, "GET /readyz ") == 0) return checked(manager.is_ready());
    if (request.compare(0, 13, "GET /metrics ") == 0) return response("200 OK", manager.metrics());
    return response("404 Not Found", "not found\n");
}

static int listen_on(const char *port) {
    sockaddr_in address = sockaddr_in();
    const int yes = 1, server = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<unsigned short>(std::atoi(port)));
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(server, reinterpret_cast<sockaddr *>(&address), sizeof address) != 0 || listen(server, 16) != 0)
        throw std::runtime_error(std::string("cannot listen on port ") + port + ": " + std::strerror(errno));
    return server;
}

static void serve(const divvy::manager &manager, int server) {
    pollfd ready = pollfd();
    ready.fd = server;
    ready.events = POLLIN;
    const timeval limit = {1, 0};
    while (!stopping) {
        if (poll(&ready, 1, 200) <= 0) continue;
        const int client = accept(server, nullptr, nullptr);
        if (client < 0) continue;
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        char request[1024];
        const ssize_t size = recv(client, request, sizeof request, 0);
        if (size > 0) {
            const std::string reply = answer(std::string(request, static_cast<std::size_t>(size)), manager);
            std::size_t sent = 0;
            while (sent < reply.size()) {
                const ssize_t part = send(client, reply.data() + sent, reply.size() - sent, MSG_NOSIGNAL);
                if (part <= 0) break;
                sent += static_cast<std::size_t>(part);
            }
        }
        close(client);
    }
}

int main() try {
    struct sigaction action;
    std::memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);

    divvy::config config{{"nats_url", "nats://127.0.0.1:4222"}, {"fleet", "tools"}};
    config.merge_env();
    config.set_source(list_tools);
    divvy::store store = divvy::store::open(config, seconds(10));
    divvy::manager manager(config, store);
    divvy::subscription subscription = manager.subscribe(DIVVY_MANAGER_FILTER_ASSIGNMENT, on_event);
    manager.start(seconds(30));

    const char *port = std::getenv("LISTEN_PORT");
    const int server = listen_on(port ? port : "8080");
    serve(manager, server);
    close(server);

    std::printf("stopping\n");
    std::fflush(stdout);
    // Use DIVVY_DEPARTURE_RESTART when the process comes back at once: its partitions then stay in place.
    manager.stop(DIVVY_DEPARTURE_LEAVE, seconds(10));
} catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
