// The C++ layer: the lifecycle of a calculator, callbacks that throw, ownership.
#include "check.hpp"

#include <atomic>
#include <type_traits>

using std::chrono::milliseconds;
using std::chrono::seconds;

template <class T> static void check_move_only() {
    static_assert(!std::is_copy_constructible<T>::value, "copied");
    static_assert(!std::is_copy_assignable<T>::value, "copied");
    static_assert(std::is_nothrow_move_constructible<T>::value, "not moved");
}

static divvy::config settings() {
    return divvy::config{{"heartbeat_ttl", "5s"},         {"cooldown", "50ms"},
                         {"cold_start_window", "100ms"},  {"planned_scale_window", "50ms"},
                         {"leave_window", "10ms"},        {"join_coalescing", "5ms"}};
}

static void beat(divvy::store &store, const char *worker) {
    store.put(DIVVY_BUCKET_HEARTBEAT, std::string("heartbeat.") + worker, "alive", timeout);
}

static void whole_life() {
    divvy::store store = divvy::store::memory();
    store.ensure(DIVVY_BUCKET_HEARTBEAT, seconds(5), timeout);
    beat(store, "a");
    beat(store, "b");
    divvy::config config = settings();
    config.set("name", "cpp").set("cooldown", milliseconds(40));
    CHECK(config.dump().find("\"40ms\"") != std::string::npos);
    CHECK(!config.try_set("cooldwon", "1s"));
    bool is_listed = false;
    for (const divvy::setting &setting : config.settings())
        is_listed |= setting.name == "cooldown" && setting.value == "40ms" && setting.origin == "code" &&
                     setting.default_value == "10s" && !setting.help.empty();
    CHECK(is_listed);
    divvy::calculator calculator(config, store);
    divvy::partitions list;
    list.add({"x", "1"}).add({"y"}, 5).add_json("[{\"keys\":[\"z\"]}]");
    CHECK(list.size() == 3);
    calculator.set_partitions(list);

    std::atomic<int> states{0}, throws{0};
    divvy::set_exception_handler([&] {
        try {
            throw;
        } catch (const std::runtime_error &thrown) {
            CHECK(std::string(thrown.what()) == "from a callback");
            throws++;
        }
    });
    auto held = std::make_shared<int>(7);
    divvy::subscription subscription =
        calculator.subscribe(DIVVY_FILTER_STATE_AND_MEMBERS, [&states, held](const divvy::event &event) {
            CHECK(event.json().find("\"kind\"") != std::string::npos);
            states++;
            throw std::runtime_error("from a callback"); // harmless
        });
    divvy::events events = calculator.open_events(DIVVY_FILTER_STATE);
    CHECK(events.fd() >= 0);
    calculator.start(timeout);
    CHECK(calculator.is_started());
    CHECK(calculator.try_start(timeout).status() == DIVVY_ALREADY_STARTED);
    wait_until([&] { return calculator.current_version() > 0; });
    CHECK(calculator.trigger_rebalance(timeout) > 1);
    wait_until([&] { return states > 3 && throws > 3; });
    CHECK(held.use_count() == 2);
    CHECK(subscription.try_unsubscribe(timeout));
    CHECK(held.use_count() == 1); // the captures of the callback were destroyed

    events.wake();
    bool is_woken = false;
    while (!is_woken)
        is_woken = events.wait([](const divvy::event &) {}) == DIVVY_WOKEN;
    std::string value;
    CHECK(store.get_value(DIVVY_BUCKET_ASSIGNMENT, "assignment.a", timeout, value));
    CHECK(value.find("partitions") != std::string::npos);
    CHECK(!store.get_value(DIVVY_BUCKET_ASSIGNMENT, "assignment.absent", timeout, value));
    CHECK(calculator.metrics().find("divvy_calculator_up 1\n") != std::string::npos);
    CHECK(calculator.status_json().find("\"is_started\":true") != std::string::npos);
    calculator.stop(timeout);
    while (events.poll(milliseconds(0), [](const divvy::event &) {}) != DIVVY_CLOSED) {
    }
    divvy::calculator moved = std::move(calculator);
    CHECK(!calculator.is_started() && moved.state() == DIVVY_CALCULATOR_IDLE);
}

static void host_code() {
    divvy::store store = divvy::store::memory();
    store.ensure(DIVVY_BUCKET_HEARTBEAT, seconds(5), timeout);
    beat(store, "a");
    beat(store, "b");
    std::atomic<bool> fails{false};
    divvy::config config = settings();
    config.set_source([&](divvy::partition_sink &sink, milliseconds) {
        sink.add({"one"}, 2);
        if (fails) throw std::runtime_error("no list");
        sink.add({"two", "x"});
    });
    config.set_strategy("first", [](const divvy::plan_input &input) {
        CHECK(input.workers() == 2 && input.worker(0) == "a");
        CHECK(input.keys(1).size() == 2 && input.weight(0) == 2);
        return std::vector<std::uint32_t>(input.partitions(), 0);
    });
    divvy::calculator calculator(config, store);
    calculator.start(timeout);
    wait_until([&] { return calculator.current_version() > 0; });
    divvy::set_exception_handler(nullptr);
    fails = true;
    try {
        calculator.refresh(seconds(2));
        CHECK(!"thrown");
    } catch (const divvy::error &error) {
        const divvy::error copy = error;
        CHECK(copy.status() == DIVVY_SOURCE_FAILED);
        CHECK(std::string(copy.what()).find("no list") != std::string::npos); // the exception of the source
        CHECK(!copy.operation().empty() && copy.key().empty() && copy.attempts() == 1);
    }
    try {
        divvy::cancel cancel;
        cancel.fire();
        cancel.run([&] { calculator.refresh(seconds(2)); });
        CHECK(!"thrown");
    } catch (const divvy::error &error) {
        CHECK(error.status() == DIVVY_CANCELLED && error.operation() == "refresh");
    }
    try {
        divvy::config{{"nonsense", "1"}};
        CHECK(!"thrown");
    } catch (const divvy::error &error) {
        CHECK(error.status() == DIVVY_INVALID_CONFIG && !error.is_retriable());
    }
    std::string value;
    CHECK(store.get_value(DIVVY_BUCKET_ASSIGNMENT, "assignment.b", timeout, value));
    CHECK(value.find("\"partitions\":[]") != std::string::npos);
}

// A source that throws: its text is in the log, with its fields, in the status and in the error.
static void what_a_source_throws_is_logged_with_fields() {
    std::atomic<bool> is_logged{false};
    divvy::set_log(DIVVY_LOG_TRACE, [&](const divvy::log_record &line) {
        if (line.message.find("the database is down") == std::string::npos) return;
        for (const divvy::log_field &field : line.fields)
            if (field.name == "code" && field.value == "source_failed" && !field.is_number) is_logged = true;
    });
    divvy::store store = divvy::store::memory();
    store.ensure(DIVVY_BUCKET_HEARTBEAT, std::chrono::seconds(3600), timeout);
    store.put(DIVVY_BUCKET_HEARTBEAT, "heartbeat.a", "alive", timeout);
    divvy::config config;
    config.set_source([](divvy::partition_sink &, milliseconds) { throw std::runtime_error("the database is down"); });
    divvy::calculator calculator(config, store);
    calculator.start(timeout);
    const divvy::result refreshed = calculator.try_refresh(timeout);
    CHECK(refreshed.status() == DIVVY_SOURCE_FAILED);
    CHECK(std::string(refreshed.detail()).find("the database is down") != std::string::npos);
    CHECK(calculator.status_json().find("the database is down") != std::string::npos);
    wait_until([&] { return is_logged.load(); });
    calculator.stop(timeout);
    divvy::set_log(DIVVY_LOG_OFF, nullptr);
}

static std::atomic<bool> is_elected{false};

static void a_worker_of_an_elected_host() {
    divvy::set_exception_handler(nullptr);
    divvy::store store = divvy::store::memory();
    divvy::config config = settings();
    config.set("heartbeat_interval", "200ms").set("emergency_grace_period", "300ms");
    config.set_source([](divvy::partition_sink &sink, milliseconds) { sink.add({"x", "1"}, 7); });
    std::atomic<int> resigned{0};
    config.set_election(
        [](const std::string &worker, milliseconds) -> milliseconds {
            CHECK(worker == "worker-0");
            if (!is_elected.exchange(true)) throw std::runtime_error("from a callback"); // retried
            return seconds(2);
        },
        [&resigned](const std::string &, milliseconds) { resigned++; });
    divvy::manager manager(config, store);
    CHECK(manager.worker_id().empty() && manager.leader().empty() && !manager.is_leader());
    CHECK(manager.state() == DIVVY_MANAGER_INIT && manager.assignment().version() == 0);
    CHECK(manager.try_trigger_rebalance(milliseconds(10)).status() == DIVVY_NOT_LEADER);
    std::atomic<int> held{0};
    divvy::subscription subscription =
        manager.subscribe(DIVVY_MANAGER_FILTER_ASSIGNMENT, [&held](const divvy::event &event) {
            const divvy::assignment change = event.assignment();
            held += static_cast<int>(change.size(DIVVY_LIST_ADDED));
            held -= static_cast<int>(change.size(DIVVY_LIST_REMOVED));
            CHECK(held == static_cast<int>(change.size()));
        });
    divvy::events events = manager.open_events(DIVVY_MANAGER_FILTER_WORKER);
    manager.start(timeout);
    wait_until([&] { return held == 1; });
    CHECK(manager.wait_state(DIVVY_MANAGER_STABLE, timeout));
    CHECK(!manager.wait_state(DIVVY_MANAGER_SHUTDOWN, milliseconds(1)));
    CHECK(manager.is_started() && manager.is_leader() && manager.leader() == "worker-0");
    const divvy::assignment assignment = manager.assignment();
    CHECK(assignment.version() > 0 && assignment.term() > 0 && !assignment.lifecycle().empty());
    CHECK(assignment.partitions().at(0).keys == (std::vector<std::string>{"x", "1"}));
    CHECK(assignment.partitions().at(0).weight == 7);
    CHECK(assignment.json().find("\"partitions\"") != std::string::npos);
    CHECK(manager.status_json().find("\"worker-0\"") != std::string::npos);
    CHECK(manager.metrics().find("divvy_manager_is_leader 1\n") != std::string::npos);
    std::int64_t version = 0;
    CHECK(manager.try_trigger_rebalance(timeout, &version) && version > assignment.version());
    CHECK(manager.try_refresh_partitions(timeout));
    manager.stop(DIVVY_DEPARTURE_LEAVE, timeout);
    CHECK(held == 0 && resigned == 1);
    bool is_leader = false, is_over = false;
    while (!is_over) {
        const divvy_status status = events.wait([&](const divvy::event &event) {
            is_leader = is_leader || event.is_leader();
            if (event.kind() == DIVVY_EVENT_MANAGER_STATE)
                is_over = event.manager_state() == DIVVY_MANAGER_SHUTDOWN;
        });
        CHECK(status == DIVVY_OK);
    }
    CHECK(is_leader);
}

int main() {
    check_move_only<divvy::config>();
    check_move_only<divvy::store>();
    check_move_only<divvy::calculator>();
    check_move_only<divvy::manager>();
    check_move_only<divvy::assignment>();
    check_move_only<divvy::subscription>();
    check_move_only<divvy::events>();
    check_move_only<divvy::partitions>();
    check_move_only<divvy::cancel>();
    whole_life();
    a_worker_of_an_elected_host();
    host_code();
    what_a_source_throws_is_logged_with_fields();
    return 0;
}
