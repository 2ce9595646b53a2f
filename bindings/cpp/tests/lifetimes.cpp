// Destructors wait for their callbacks. Exceptions of callbacks are reported.
#include "check.hpp"

#include <atomic>
#include <condition_variable>
#include <mutex>

using std::chrono::milliseconds;
using std::chrono::seconds;

// A gate that blocks a callback.
class gate {
public:
    void pass() {
        std::unique_lock<std::mutex> guard(lock_);
        is_entered_ = true;
        changed_.notify_all();
        changed_.wait(guard, [this] { return is_open_; });
    }
    void wait_until_entered() {
        std::unique_lock<std::mutex> guard(lock_);
        CHECK(changed_.wait_for(guard, timeout, [this] { return is_entered_; }));
    }
    void open() {
        std::lock_guard<std::mutex> guard(lock_);
        is_open_ = true;
        changed_.notify_all();
    }

private:
    std::mutex lock_;
    std::condition_variable changed_;
    bool is_entered_ = false, is_open_ = false;
};

static divvy::store store_with_a_worker() {
    divvy::store store = divvy::store::memory();
    store.ensure(DIVVY_BUCKET_HEARTBEAT, seconds(3600), timeout);
    store.put(DIVVY_BUCKET_HEARTBEAT, "heartbeat.a", "alive", timeout);
    return store;
}

static divvy::config settings() {
    return divvy::config{{"heartbeat_ttl", "1h"}, {"cooldown", "1ms"}, {"cold_start_window", "10ms"}};
}

static void a_free_that_times_out_is_repeated_until_it_succeeds() {
    int calls = 0;
    const auto free = [&calls] { return ++calls < 4 ? DIVVY_TIMED_OUT : DIVVY_OK; };
    CHECK(divvy::detail::free_without_limit("a test", free) == DIVVY_OK && calls == 4);
}

static void destructors_wait_for_callbacks() {
    divvy::store store = store_with_a_worker();
    std::atomic<bool> is_over{false};
    gate source, callback;
    divvy::config config = settings();
    std::atomic<bool> hangs{false};
    config.set_source([&](divvy::partition_sink &sink, milliseconds) {
        sink.add({"x"});
        if (hangs) source.pass();
        CHECK(!is_over);
    });
    {
        divvy::calculator calculator(config, store);
        divvy::subscription subscription = calculator.subscribe(DIVVY_FILTER_STATE, [&](const divvy::event &) {
            callback.pass();
            CHECK(!is_over);
        });
        calculator.start(timeout);
        hangs = true;
        CHECK(calculator.try_refresh(milliseconds(1)).status() == DIVVY_TIMED_OUT);
        std::thread opener([&] {
            callback.wait_until_entered();
            source.wait_until_entered();
            callback.open();
            source.open();
        });
        divvy::cancel cancel;
        cancel.fire();
        // A destructor inside a cancelled call waits for the callback too.
        cancel.run([&] {
            divvy::subscription ended = std::move(subscription);
            divvy::calculator freed = std::move(calculator);
        });
        opener.join();
    }
    is_over = true;
}

static void what_an_event_callback_throws_is_logged() {
    std::mutex lock;
    std::string lines;
    divvy::set_log(DIVVY_LOG_ERROR, [&](const divvy::log_record &line) {
        std::lock_guard<std::mutex> guard(lock);
        lines += line.message + "\n";
    });
    divvy::store store = store_with_a_worker();
    divvy::calculator calculator(settings(), store);
    divvy::partitions list;
    list.add({"x"});
    calculator.set_partitions(list);
    std::atomic<int> calls{0};
    divvy::subscription subscription =
        calculator.subscribe(DIVVY_FILTER_STATE, [&calls](const divvy::event &) {
            if (++calls == 1) throw std::runtime_error("the cache is gone");
            if (calls == 2) throw 7;
        });
    calculator.start(timeout);
    calculator.trigger_rebalance(timeout);
    // Unsubscribing discards what is still queued.
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    while (calls <= 2 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    CHECK(calls > 2); // events are still delivered after an exception
    CHECK(subscription.try_unsubscribe(timeout));
    divvy::set_log(DIVVY_LOG_OFF, nullptr);
    CHECK(lines.find("event callback failed: the cache is gone") != std::string::npos);
    CHECK(lines.find("event callback failed: an exception that is no std::exception") != std::string::npos);
}

int main() {
    a_free_that_times_out_is_repeated_until_it_succeeds();
    destructors_wait_for_callbacks();
    what_an_event_callback_throws_is_logged();
    return 0;
}
