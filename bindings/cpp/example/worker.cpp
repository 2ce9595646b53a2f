// A worker: joins a fleet, prints its assignment changes, and leaves on SIGINT or SIGTERM.
//
//     c++ -std=c++11 worker.cpp $(pkg-config --cflags --libs divvy) -o worker
#include <divvy.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>

using std::chrono::seconds;

static void print(const char *what, const divvy::assignment &assignment, divvy_assignment_list list) {
    for (const divvy::partition &partition : assignment.partitions(list))
        std::printf("  %s %s/%s\n", what, partition.keys.at(0).c_str(), partition.keys.at(1).c_str());
}

int main() try {
    // Block the signals before any thread starts; sigwait below receives them.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, nullptr);

    divvy::config config;
    config.merge_env();
    // The partitions of the fleet. Every worker needs the same list, because each may lead.
    config.set_source([](divvy::partition_sink &tools, divvy::milliseconds) {
        tools.add({"tool001", "chamber1"}, 100);
        tools.add({"tool001", "chamber2"});
        tools.add({"tool002", "chamber1"});
    });
    divvy::store store = std::getenv("DIVVY_NATS_URL") ? divvy::store::open(config, seconds(10))
                                                       : divvy::store::memory();
    divvy::manager manager(config, store);
    divvy::subscription subscription =
        manager.subscribe(DIVVY_MANAGER_FILTER_WORKER, [](const divvy::event &event) {
            std::printf("%s\n", event.json().c_str());
            if (event.kind() == DIVVY_EVENT_ASSIGNMENT) {
                const divvy::assignment change = event.assignment();
                print("start", change, DIVVY_LIST_ADDED);
                print("stop ", change, DIVVY_LIST_REMOVED);
            }
            std::fflush(stdout);
        });
    manager.start(seconds(30));

    int number = 0;
    sigwait(&signals, &number);
    std::printf("stopping: signal %d\n", number);
    // Use DIVVY_DEPARTURE_RESTART when the process comes back at once: nothing moves then.
    manager.stop(DIVVY_DEPARTURE_LEAVE, seconds(10));
} catch (const divvy::error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
