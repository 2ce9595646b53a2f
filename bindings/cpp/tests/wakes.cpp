// A wake, or the end of a subscription, concurrent with an event: none may be lost or hang.
#include "check.hpp"

#include <condition_variable>
#include <mutex>

using std::chrono::milliseconds;
using std::chrono::seconds;

static const milliseconds cycle_max = seconds(10);

static int cycles() {
    const char *wanted = std::getenv("DIVVY_TEST_CYCLES");
    return wanted ? std::atoi(wanted) * 20 : 20000;
}

static void wake_in_cycles(divvy::calculator &calculator) {
    divvy::events events = calculator.open_events(DIVVY_FILTER_STATE);
    std::mutex lock;
    std::condition_variable changed;
    int woken = 0;
    bool is_over = false;
    std::thread reader([&] {
        for (;;) {
            const divvy_status status = events.wait([](const divvy::event &) {});
            if (status == DIVVY_OK) continue;
            CHECK(status == DIVVY_WOKEN);
            std::lock_guard<std::mutex> guard(lock);
            ++woken;
            changed.notify_one();
            if (is_over) return;
        }
    });
    for (int cycle = 1; cycle <= cycles(); ++cycle) {
        calculator.trigger_rebalance(cycle_max);
        {
            std::lock_guard<std::mutex> guard(lock);
            is_over = cycle == cycles();
        }
        events.wake();
        std::unique_lock<std::mutex> guard(lock);
        CHECK(changed.wait_for(guard, cycle_max, [&] { return woken == cycle; }));
    }
    reader.join();
}

static void unsubscribe_in_cycles(divvy::calculator &calculator) {
    for (int cycle = 0; cycle < cycles(); ++cycle) {
        std::shared_ptr<int> owned = std::make_shared<int>(0);
        divvy::subscription subscription = calculator.subscribe(
            DIVVY_FILTER_STATE, [owned](const divvy::event &) { ++*owned; });
        calculator.trigger_rebalance(cycle_max);
        CHECK(subscription.try_unsubscribe(cycle_max));
        CHECK(owned.use_count() == 1); // the callback and its captures were destroyed
    }
}

int main() {
    divvy::store store = divvy::store::memory();
    store.ensure(DIVVY_BUCKET_HEARTBEAT, seconds(3600), cycle_max);
    store.put(DIVVY_BUCKET_HEARTBEAT, "heartbeat.a", "alive", cycle_max);
    divvy::config config{{"heartbeat_ttl", "1h"}, {"cooldown", "1ms"}, {"cold_start_window", "10ms"}};
    divvy::calculator calculator(config, store);
    divvy::partitions list;
    list.add({"x"});
    calculator.set_partitions(list);
    calculator.start(cycle_max);
    wake_in_cycles(calculator);
    unsubscribe_in_cycles(calculator);
    return 0;
}
