// Runs a calculator and prints its events until SIGINT or SIGTERM.
//
//     c++ -std=c++11 events.cpp $(pkg-config --cflags --libs divvy) -o events
#include <divvy.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>

using std::chrono::seconds;

static divvy::store open_store(divvy::config &config) {
    if (std::getenv("DIVVY_NATS_URL")) return divvy::store::open(config, seconds(10));
    // These workers send a single heartbeat, so it must not expire.
    config.set("heartbeat_ttl", "1h");
    divvy::store store = divvy::store::memory();
    store.ensure(DIVVY_BUCKET_HEARTBEAT, seconds(0), seconds(1));
    store.put(DIVVY_BUCKET_HEARTBEAT, "heartbeat.worker-0", "up", seconds(1));
    store.put(DIVVY_BUCKET_HEARTBEAT, "heartbeat.worker-1", "up", seconds(1));
    return store;
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
    divvy::store store = open_store(config);
    divvy::calculator calculator(config, store);
    divvy::partitions partitions;
    partitions.add({"tool001", "chamber1"}, 100).add({"tool001", "chamber2"}).add({"tool002", "chamber1"});
    calculator.set_partitions(partitions);
    divvy::subscription subscription =
        calculator.subscribe(DIVVY_FILTER_STATE_AND_MEMBERS, [](const divvy::event &event) {
            std::printf("%s\n", event.json().c_str());
            std::fflush(stdout);
        });
    calculator.start(seconds(30));

    int number = 0;
    sigwait(&signals, &number);
    std::printf("stopping: signal %d\n", number);
    calculator.stop(seconds(10));
} catch (const divvy::error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
