// The C++ layer without exceptions: every call that can fail returns a result, and the process survives
// each failure.
#include "check.hpp"

#include <atomic>

#if !defined(DIVVY_NO_EXCEPTIONS)
#error "compile with -fno-exceptions"
#endif

#define OK(call)                                                                          \
    do {                                                                                  \
        const divvy::result ended_ = (call);                                               \
        if (!ended_) {                                                                    \
            std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call,            \
                         ended_.detail().c_str());                                         \
            std::abort();                                                                 \
        }                                                                                 \
    } while (0)

using std::chrono::milliseconds;
using std::chrono::seconds;

static divvy::config settings() {
    divvy::config config(nullptr);
    OK(divvy::config::try_create(config));
    OK(config.try_set("heartbeat_ttl", "5s"));
    OK(config.try_set("cooldown", milliseconds(50)));
    OK(config.try_set("cold_start_window", "100ms"));
    OK(config.try_set("planned_scale_window", "50ms"));
    OK(config.try_merge_json("{\"leave_window\":\"10ms\",\"join_coalescing\":\"5ms\"}"));
    return config;
}

// Former crashes: a server that is down, and an unknown setting.
static void failures_are_results() {
    divvy::config config = settings();
    CHECK(config.try_set("cooldwon", "1s").status() == DIVVY_INVALID_CONFIG);
    CHECK(!config.try_merge_json("{").detail().empty());
    OK(config.try_set("nats_url", "nats://127.0.0.1:1"));
    divvy::store store;
    const divvy::result connected = divvy::store::try_open(config, milliseconds(300), store);
    CHECK(!connected && connected.is_retriable() && !connected.detail().empty() && store.get().id == 0);
    CHECK(store.try_ensure(DIVVY_BUCKET_HEARTBEAT, seconds(5), timeout).status() == DIVVY_NULL_ARGUMENT);
    divvy::calculator calculator;
    CHECK(!divvy::calculator::try_create(config, store, calculator) && calculator.get().id == 0);
    CHECK(!calculator.try_start(timeout) && !calculator.try_refresh(timeout));
    divvy::manager manager;
    CHECK(!divvy::manager::try_create(config, store, manager));
    std::string text = "as before";
    CHECK(!manager.try_metrics(text) && !manager.try_leader(text) && text == "as before");
    divvy::subscription subscription;
    divvy::events events;
    CHECK(!manager.try_subscribe(DIVVY_MANAGER_FILTER_WORKER, [](const divvy::event &) {}, subscription));
    CHECK(!manager.try_open_events(DIVVY_MANAGER_FILTER_WORKER, events) && !events.try_wake());
}

static void a_calculator() {
    divvy::store store;
    OK(divvy::store::try_memory(store));
    OK(store.try_ensure(DIVVY_BUCKET_HEARTBEAT, seconds(5), timeout));
    OK(store.try_put(DIVVY_BUCKET_HEARTBEAT, "heartbeat.a", "alive", timeout));
    divvy::config config = settings();
    std::atomic<bool> fails{false};
    OK(config.try_set_source([&fails](divvy::partition_sink &sink, milliseconds) {
        if (fails) return sink.fail("the database is down");
        OK(sink.try_add({"x", "1"}, 2));
        OK(sink.try_add_json("[{\"keys\":[\"y\"]}]"));
    }));
    OK(config.try_set_strategy("first", [](const divvy::plan_input &input) {
        return std::vector<std::uint32_t>(input.partitions(), 0);
    }));
    std::string text;
    OK(config.try_dump(text));
    CHECK(text.find("cooldown") != std::string::npos);
    divvy::calculator calculator;
    OK(divvy::calculator::try_create(config, store, calculator));
    divvy::events events;
    OK(calculator.try_open_events(DIVVY_FILTER_STATE, events));
    std::atomic<int> seen{0};
    divvy::subscription subscription;
    OK(calculator.try_subscribe(DIVVY_FILTER_STATE, [&seen](const divvy::event &) { ++seen; }, subscription));
    OK(calculator.try_start(timeout));
    wait_until([&] { return calculator.current_version() > 0 && seen > 0; });
    std::int64_t version = 0;
    OK(calculator.try_trigger_rebalance(timeout, &version));
    CHECK(version > 1);
    fails = true;
    const divvy::result refreshed = calculator.try_refresh(seconds(2));
    CHECK(refreshed.status() == DIVVY_SOURCE_FAILED);
    CHECK(refreshed.detail().find("the database is down") != std::string::npos);
    CHECK(refreshed.attempts() >= 1 && !refreshed.operation().empty());
    OK(store.try_get_value(DIVVY_BUCKET_ASSIGNMENT, "assignment.a", timeout, text));
    CHECK(store.try_get_value(DIVVY_BUCKET_ASSIGNMENT, "assignment.b", timeout, text).status() ==
          DIVVY_NOT_FOUND);
    OK(calculator.try_status_json(text));
    OK(calculator.try_metrics(text));
    int fd = -1;
    OK(events.try_fd(fd));
    CHECK(fd >= 0);
    while (events.try_poll(milliseconds(0), [](const divvy::event &) {})) {
    }
    OK(events.try_wake());
    CHECK(events.try_wait([](const divvy::event &) {}).status() == DIVVY_WOKEN);
    divvy::cancel cancel(nullptr);
    OK(divvy::cancel::try_create(cancel));
    OK(cancel.try_fire());
    divvy_status ended = DIVVY_OK;
    OK(cancel.try_run([&] { ended = calculator.try_refresh(timeout).status(); }));
    CHECK(ended == DIVVY_CANCELLED);
    OK(subscription.try_unsubscribe(timeout));
    OK(calculator.try_stop(timeout));
}

static void a_manager() {
    divvy::store store;
    OK(divvy::store::try_memory(store));
    divvy::config config = settings();
    OK(config.try_set("heartbeat_interval", "200ms"));
    OK(config.try_set("emergency_grace_period", "300ms"));
    std::atomic<int> asked{0};
    OK(config.try_set_election([&asked](const std::string &, milliseconds) {
        return ++asked == 1 ? milliseconds(-1) : milliseconds(2000); // fails at first
    }));
    divvy::manager manager;
    OK(divvy::manager::try_create(config, store, manager));
    std::string id;
    CHECK(manager.try_worker_id(id).status() == DIVVY_NOT_FOUND);
    divvy::partitions list(nullptr);
    OK(divvy::partitions::try_create(list));
    OK(list.try_add({"x"}));
    OK(list.try_add_json("[{\"keys\":[\"y\"]}]"));
    OK(manager.try_set_partitions(list));
    std::atomic<std::size_t> held{0};
    divvy::subscription subscription;
    OK(manager.try_subscribe(
        DIVVY_MANAGER_FILTER_ASSIGNMENT,
        [&held](const divvy::event &event) {
            divvy::assignment change;
            OK(event.try_assignment(change));
            held = change.size();
        },
        subscription));
    OK(manager.try_start(timeout));
    OK(manager.try_wait_state(DIVVY_MANAGER_STABLE, timeout));
    wait_until([&] { return held == 2; });
    OK(manager.try_worker_id(id));
    CHECK(!id.empty());
    divvy::assignment assignment;
    OK(manager.try_assignment(assignment));
    CHECK(assignment.size() == 2);
    OK(manager.try_trigger_rebalance(timeout));
    OK(manager.try_refresh_partitions(timeout));
    CHECK(manager.try_wait_state(DIVVY_MANAGER_INIT, milliseconds(1)).status() == DIVVY_TIMED_OUT);
    OK(manager.try_stop(DIVVY_DEPARTURE_LEAVE, timeout));
}

int main() {
    std::atomic<int> lines{0};
    OK(divvy::try_set_log(DIVVY_LOG_TRACE, [&lines](const divvy::log_record &) { ++lines; }));
    failures_are_results();
    a_calculator();
    a_manager();
    OK(divvy::try_set_log(DIVVY_LOG_OFF, nullptr));
    CHECK(lines > 0);
    return 0;
}
