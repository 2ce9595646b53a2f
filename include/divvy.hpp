// divvy: divides partitions among a changing fleet of workers. Header-only layer over divvy.h for C++11
// and later. divvy.h documents each call.
//
// To                          use
//   run a worker              divvy::manager
//   run the leader's part     divvy::calculator
//   configure                 divvy::config
//   connect                   divvy::store::nats, divvy::store::memory
//   receive events            manager::subscribe (callback), manager::open_events (queue)
//   end a blocking call       divvy::cancel
//   receive log records       divvy::set_log
//
// Objects are move-only and own their handle. Failures throw divvy::error. Calls with the prefix try_
// return a divvy::result instead. With DIVVY_NO_EXCEPTIONS or -fno-exceptions, use the try_ forms: any
// other call ends the process on failure.
//
// An exception that leaves a callback is caught and passed to the handler of set_exception_handler().
// After a stop or an unsubscribe, callbacks and their captures have been destroyed.
#ifndef DIVVY_HPP
#define DIVVY_HPP

#include <divvy.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>
#if __cplusplus >= 201703L
#include <string_view>
#endif

#if !defined(DIVVY_NO_EXCEPTIONS) && !defined(__cpp_exceptions) && !defined(__EXCEPTIONS)
#define DIVVY_NO_EXCEPTIONS
#endif
#if !defined(DIVVY_NO_EXCEPTIONS)
#include <stdexcept>
#endif

namespace divvy {

#if __cplusplus >= 201703L
using text_view = std::string_view;
#else
using text_view = const std::string &;
#endif
using milliseconds = std::chrono::milliseconds;

/// Fields of a failure in addition to its text; empty if the call failed before it began an operation.
struct failure {
    std::string operation; ///< The operation that failed, such as "start", or the failing part of it.
    std::string key;       ///< The store key that the failure was about; empty if none.
    std::uint32_t attempts; ///< Number of failed attempts, the last one included.
    failure() : attempts(0) {}
};

/// A status with its detail. Thrown unless exceptions are disabled.
class error
#if !defined(DIVVY_NO_EXCEPTIONS)
    : public std::runtime_error
#endif
{
public:
#if !defined(DIVVY_NO_EXCEPTIONS)
    error(divvy_status status, const std::string &detail, failure fields = failure())
        : std::runtime_error(std::string(divvy_status_name(status)) + ": " + detail), status_(status),
          fields_(std::make_shared<failure>(std::move(fields))) {}
#else
    error(divvy_status status, const std::string &detail, failure fields = failure())
        : what_(std::string(divvy_status_name(status)) + ": " + detail), status_(status),
          fields_(std::make_shared<failure>(std::move(fields))) {}
    const char *what() const noexcept { return what_.c_str(); }
#endif
    divvy_status status() const noexcept { return status_; }
    bool is_retriable() const noexcept { return divvy_status_is_retriable(status_) != 0; }
    const std::string &operation() const noexcept { return fields_->operation; }
    const std::string &key() const noexcept { return fields_->key; }
    std::uint32_t attempts() const noexcept { return fields_->attempts; }

private:
#if defined(DIVVY_NO_EXCEPTIONS)
    std::string what_;
#endif
    divvy_status status_;
    std::shared_ptr<const failure> fields_; // shared, for copies of what is thrown must not throw
};

/// The result of a try_ call. Converts to true on success.
class result {
public:
    result(divvy_status status, const char *detail, failure fields = failure())
        : status_(status), detail_(status ? detail : ""), fields_(std::move(fields)) {}
    explicit operator bool() const noexcept { return status_ == DIVVY_OK; }
    divvy_status status() const noexcept { return status_; }
    const std::string &detail() const noexcept { return detail_; }
    const std::string &operation() const noexcept { return fields_.operation; }
    const std::string &key() const noexcept { return fields_.key; }
    std::uint32_t attempts() const noexcept { return fields_.attempts; }
    /// Throws on failure; ends the process if exceptions are disabled.
    void check() const {
        if (status_ == DIVVY_OK) return;
#if !defined(DIVVY_NO_EXCEPTIONS)
        throw error(status_, detail_, fields_);
#else
        std::terminate();
#endif
    }

private:
    divvy_status status_;
    std::string detail_;
    failure fields_;
};

namespace detail {

struct errbuf {
    char text[512];
    errbuf() { text[0] = 0; }
    result operator()(divvy_status status) const {
        failure fields;
        if (status != DIVVY_OK) {
            fields.operation = divvy_error_operation(text, sizeof text, nullptr);
            fields.key = divvy_error_key(text, sizeof text, nullptr);
            fields.attempts = divvy_error_attempts(text, sizeof text);
        }
        return result(status, text, std::move(fields));
    }
};

/// Owns a handle and frees it on destruction.
template <class Handle, divvy_status (*Free)(Handle)> class owned {
public:
    owned() noexcept : handle_() {}
    explicit owned(Handle handle) noexcept : handle_(handle) {}
    owned(owned &&other) noexcept : handle_(other.release()) {}
    owned &operator=(owned &&other) noexcept {
        if (this != &other) {
            reset();
            handle_ = other.release();
        }
        return *this;
    }
    owned(const owned &) = delete;
    owned &operator=(const owned &) = delete;
    ~owned() { reset(); }
    Handle get() const noexcept { return handle_; }
    explicit operator bool() const noexcept { return handle_.id != 0; }
    Handle release() noexcept {
        Handle handle = handle_;
        handle_ = Handle();
        return handle;
    }
    void reset() noexcept {
        if (handle_.id != 0) Free(release());
    }

private:
    Handle handle_;
};

inline divvy_status free_calculator(divvy_calculator handle) noexcept {
    return divvy_calculator_free(handle, nullptr, 0);
}
inline divvy_status free_manager(divvy_manager handle) noexcept {
    return divvy_manager_free(handle, nullptr, 0);
}
inline divvy_status free_subscription(divvy_subscription handle) noexcept {
    return divvy_subscription_free(handle, 5000, nullptr, 0);
}

template <class T> void destroy(void *userdata) { delete static_cast<T *>(userdata); }

using exception_handler = std::function<void()>;
inline exception_handler &handler() {
    static exception_handler value;
    return value;
}

/// Runs a callback and catches its exceptions.
template <class Fallback, class Body> Fallback contain(Fallback fallback, Body &&body) noexcept {
#if !defined(DIVVY_NO_EXCEPTIONS)
    try {
        return body();
    } catch (...) {
        try {
            if (handler()) handler()();
        } catch (...) {
        }
        return fallback;
    }
#else
    (void)fallback;
    return body();
#endif
}

inline std::string to_string(divvy_text handle) {
    owned<divvy_text, divvy_text_free> text(handle);
    std::size_t length = 0;
    const char *data = divvy_text_data(text.get(), &length);
    return std::string(data, length);
}

} // namespace detail

/// Sets the function that is called inside the catch block when a callback has thrown; `throw;`
/// rethrows the exception there. Set it before the first callback. It runs on threads of the library.
inline void set_exception_handler(std::function<void()> handler) {
    detail::handler() = std::move(handler);
}

/// A unit of work.
struct partition {
    std::vector<std::string> keys;
    std::int64_t weight;
};

/// The assignment of one worker: an immutable snapshot.
class assignment {
public:
    explicit assignment(divvy_assignment handle) noexcept : handle_(handle) {}
    std::int64_t version() const noexcept { return divvy_assignment_version(get()); }
    std::int64_t term() const noexcept { return divvy_assignment_term(get()); }
    std::string lifecycle() const { return text(divvy_assignment_lifecycle); }
    std::string json() const { return text(divvy_assignment_json); }
    std::size_t size(divvy_assignment_list list = DIVVY_LIST_OWNED) const noexcept {
        return count(divvy_assignment_count(get(), list));
    }
    /// The partitions of a list: owned or, for an assignment from an event, added or removed.
    std::vector<partition> partitions(divvy_assignment_list list = DIVVY_LIST_OWNED) const {
        std::vector<partition> all(size(list));
        for (std::size_t index = 0; index < all.size(); ++index) {
            const std::size_t keys = count(divvy_assignment_key_count(get(), list, index));
            for (std::size_t key = 0; key < keys; ++key) {
                std::size_t length = 0;
                const char *name = divvy_assignment_key(get(), list, index, key, &length);
                all[index].keys.push_back(name ? std::string(name, length) : std::string());
            }
            all[index].weight = divvy_assignment_weight(get(), list, index);
        }
        return all;
    }
    divvy_assignment get() const noexcept { return handle_.get(); }

private:
    static std::size_t count(std::int64_t value) noexcept {
        return value > 0 ? static_cast<std::size_t>(value) : 0;
    }
    std::string text(const char *(*read)(divvy_assignment, std::size_t *)) const {
        std::size_t length = 0;
        const char *data = read(get(), &length);
        return std::string(data, length);
    }
    detail::owned<divvy_assignment, divvy_assignment_free> handle_;
};

/// An event: owned when polled, borrowed inside a callback.
class event {
public:
    explicit event(divvy_event handle) noexcept : handle_(handle) {}
    divvy_event_kind kind() const noexcept { return static_cast<divvy_event_kind>(divvy_event_get_kind(handle_)); }
    divvy_calculator_state state() const noexcept { return static_cast<divvy_calculator_state>(divvy_event_state(handle_)); }
    divvy_calculator_state from_state() const noexcept {
        return static_cast<divvy_calculator_state>(divvy_event_from_state(handle_));
    }
    divvy_reason reason() const noexcept { return static_cast<divvy_reason>(divvy_event_reason(handle_)); }
    divvy_member_change member_change() const noexcept {
        return static_cast<divvy_member_change>(divvy_event_member_change(handle_));
    }
    divvy_status status() const noexcept { return static_cast<divvy_status>(divvy_event_status(handle_)); }
    std::int64_t version() const noexcept { return divvy_event_version(handle_); }
    std::int64_t applied_version() const noexcept { return divvy_event_applied_version(handle_); }
    std::uint64_t time_ns() const noexcept { return divvy_event_time_ns(handle_); }
    std::uint64_t workers() const noexcept { return divvy_event_worker_count(handle_); }
    std::uint64_t partitions() const noexcept { return divvy_event_partition_count(handle_); }
    std::uint64_t moved() const noexcept { return divvy_event_moved_count(handle_); }
    std::uint64_t missed() const noexcept { return divvy_event_missed_count(handle_); }
    std::string worker() const { return text(divvy_event_worker); }
    std::string message() const { return text(divvy_event_message); }
    /// Set for failures.
    std::string operation() const { return text(divvy_event_operation); }
    std::string key() const { return text(divvy_event_key); }
    std::uint32_t attempts() const noexcept { return divvy_event_attempts(handle_); }
    std::string json() const { return text(divvy_event_json); }
    /// Set for DIVVY_EVENT_MANAGER_STATE.
    divvy_manager_state worker_state() const noexcept {
        return static_cast<divvy_manager_state>(divvy_event_state(handle_));
    }
    /// Set for DIVVY_EVENT_ASSIGNMENT; throws for other kinds.
    divvy::assignment assignment() const {
        divvy_assignment handle = {};
        detail::errbuf e;
        e(divvy_event_assignment(handle_, &handle, e.text, sizeof e.text)).check();
        return divvy::assignment(handle);
    }
    bool is_leader() const noexcept { return divvy_event_is_leader(handle_) == 1; }
    divvy_alert_level alert_level() const noexcept {
        return static_cast<divvy_alert_level>(divvy_event_alert_level(handle_));
    }
    milliseconds lasted() const noexcept {
        return milliseconds(static_cast<std::int64_t>(divvy_event_lasted_ms(handle_)));
    }
    divvy_event get() const noexcept { return handle_; }

private:
    std::string text(const char *(*read)(divvy_event, std::size_t *)) const {
        std::size_t length = 0;
        const char *data = read(handle_, &length);
        return std::string(data, length);
    }
    divvy_event handle_;
};

/// Ends blocking calls before their timeout. Not copyable; several threads may share one.
class cancel {
public:
    cancel() {
        divvy_cancel handle = {};
        detail::errbuf e;
        e(divvy_cancel_new(&handle, e.text, sizeof e.text)).check();
        handle_ = owner(handle);
    }
    /// Ends current and later blocking calls that use it; they fail with DIVVY_CANCELLED.
    void fire() {
        detail::errbuf e;
        e(divvy_cancel_fire(handle_.get(), e.text, sizeof e.text)).check();
    }
    /// Runs `call` on this thread; its blocking calls end when this is fired. Do not nest.
    template <class Call> void during(Call &&call) {
        detail::errbuf e;
        e(divvy_cancel_use(handle_.get(), e.text, sizeof e.text)).check();
        struct back {
            ~back() { divvy_cancel_use(divvy_cancel(), nullptr, 0); }
        } after;
        (void)after;
        std::forward<Call>(call)();
    }
    divvy_cancel get() const noexcept { return handle_.get(); }

private:
    using owner = detail::owned<divvy_cancel, divvy_cancel_free>;
    owner handle_;
};

/// A list of partitions.
class partitions {
public:
    partitions() {
        divvy_partitions handle = {};
        detail::errbuf e;
        e(divvy_partitions_new(&handle, e.text, sizeof e.text)).check();
        handle_ = owner(handle);
    }
    result try_add(const std::vector<std::string> &keys, std::int64_t weight = 0) {
        return add_to(handle_.get(), keys, weight);
    }
    partitions &add(const std::vector<std::string> &keys, std::int64_t weight = 0) {
        try_add(keys, weight).check();
        return *this;
    }
    result try_add_json(text_view json) {
        detail::errbuf e;
        return e(divvy_partitions_add_json(handle_.get(), json.data(), json.size(), e.text, sizeof e.text));
    }
    partitions &add_json(text_view json) {
        try_add_json(json).check();
        return *this;
    }
    std::int64_t size() const noexcept { return divvy_partitions_count(handle_.get()); }
    divvy_partitions get() const noexcept { return handle_.get(); }

    static result add_to(divvy_partitions list, const std::vector<std::string> &keys, std::int64_t weight) {
        std::vector<const char *> pointers;
        for (const std::string &key : keys) pointers.push_back(key.c_str());
        detail::errbuf e;
        const char *none[1] = {""};
        return e(divvy_partitions_add(list, pointers.empty() ? none : pointers.data(), pointers.size(),
                                      weight, e.text, sizeof e.text));
    }

private:
    using owner = detail::owned<divvy_partitions, divvy_partitions_free>;
    owner handle_;
};

/// The list that a partition source fills.
class partition_sink {
public:
    explicit partition_sink(divvy_partitions list) noexcept : list_(list) {}
    void add(const std::vector<std::string> &keys, std::int64_t weight = 0) {
        partitions::add_to(list_, keys, weight).check();
    }
    void add_json(text_view json) {
        detail::errbuf e;
        e(divvy_partitions_add_json(list_, json.data(), json.size(), e.text, sizeof e.text)).check();
    }

private:
    divvy_partitions list_;
};

/// The input of a strategy.
class plan_input {
public:
    explicit plan_input(divvy_plan_input handle) noexcept : handle_(handle) {}
    std::size_t workers() const noexcept { return count(divvy_plan_input_worker_count(handle_)); }
    std::size_t partitions() const noexcept { return count(divvy_plan_input_partition_count(handle_)); }
    std::string worker(std::size_t index) const {
        const char *id = divvy_plan_input_worker(handle_, index, nullptr);
        return id ? id : "";
    }
    std::vector<std::string> keys(std::size_t partition) const {
        std::vector<std::string> keys;
        const std::size_t keys_there = count(divvy_plan_input_key_count(handle_, partition));
        for (std::size_t key = 0; key < keys_there; ++key) {
            std::size_t length = 0;
            const char *text = divvy_plan_input_key(handle_, partition, key, &length);
            keys.push_back(text ? std::string(text, length) : std::string());
        }
        return keys;
    }
    std::int64_t weight(std::size_t partition) const noexcept {
        return divvy_plan_input_weight(handle_, partition);
    }
    /// The index of its current owner, or DIVVY_NO_WORKER.
    std::uint32_t previous(std::size_t partition) const noexcept {
        return divvy_plan_input_previous(handle_, partition);
    }

private:
    static std::size_t count(std::int64_t value) noexcept {
        return value > 0 ? static_cast<std::size_t>(value) : 0;
    }
    divvy_plan_input handle_;
};

/// Settings by name, and the host's callbacks.
class config {
public:
    using source = std::function<void(partition_sink &, milliseconds)>;
    using strategy = std::function<std::vector<std::uint32_t>(const plan_input &)>;

    config() {
        divvy_config handle = {};
        detail::errbuf e;
        e(divvy_config_new(&handle, e.text, sizeof e.text)).check();
        handle_ = owner(handle);
    }
    config(std::initializer_list<std::pair<const char *, const char *>> settings) : config() {
        for (const auto &setting : settings) set(setting.first, setting.second);
    }
    result try_set(const std::string &key, const std::string &value) {
        detail::errbuf e;
        return e(divvy_config_set(get(), key.c_str(), value.c_str(), e.text, sizeof e.text));
    }
    config &set(const std::string &key, const std::string &value) {
        try_set(key, value).check();
        return *this;
    }
    config &set(const std::string &key, milliseconds value) {
        return set(key, std::to_string(value.count()) + "ms");
    }
    result try_merge_json(text_view json) {
        detail::errbuf e;
        return e(divvy_config_merge_json(get(), json.data(), json.size(), e.text, sizeof e.text));
    }
    config &merge_json(text_view json) {
        try_merge_json(json).check();
        return *this;
    }
    result try_merge_env(const std::string &prefix = "DIVVY_") {
        detail::errbuf e;
        return e(divvy_config_merge_env(get(), prefix.c_str(), e.text, sizeof e.text));
    }
    config &merge_env(const std::string &prefix = "DIVVY_") {
        try_merge_env(prefix).check();
        return *this;
    }
    std::string dump() const {
        divvy_text text = {};
        detail::errbuf e;
        e(divvy_config_dump(get(), &text, e.text, sizeof e.text)).check();
        return detail::to_string(text);
    }
    /// If the source throws, the last plan remains in force and the source is called again.
    config &set_source(source fill) {
        std::unique_ptr<source> userdata(new source(std::move(fill)));
        detail::errbuf e;
        e(divvy_config_set_source(get(), call_source, userdata.get(), detail::destroy<source>, e.text,
                                  sizeof e.text))
            .check();
        userdata.release();
        return *this;
    }
    /// If the strategy throws, the last plan remains in force and the strategy is called again.
    config &set_strategy(const std::string &name, strategy divide) {
        std::unique_ptr<strategy> userdata(new strategy(std::move(divide)));
        detail::errbuf e;
        e(divvy_config_set_strategy(get(), name.c_str(), call_strategy, userdata.get(),
                                    detail::destroy<strategy>, e.text, sizeof e.text))
            .check();
        userdata.release();
        return *this;
    }
    /// Returns how long the worker leads from now on; zero if another worker leads. If it throws, the
    /// leader is unknown: a leader continues until shortly before its last grant ends.
    using campaign = std::function<milliseconds(const std::string &worker, milliseconds timeout)>;
    using resign = std::function<void(const std::string &worker, milliseconds timeout)>;

    /// Sets an election of the host, instead of the lease in the store.
    config &set_election(campaign ask, resign give_back = resign()) {
        std::unique_ptr<election> userdata(new election{std::move(ask), std::move(give_back)});
        detail::errbuf e;
        e(divvy_config_set_election(get(), call_campaign, call_resign, userdata.get(),
                                    detail::destroy<election>, e.text, sizeof e.text))
            .check();
        userdata.release();
        return *this;
    }
    divvy_config get() const noexcept { return handle_.get(); }

private:
    struct election {
        campaign ask;
        resign give_back;
    };
    static std::int32_t call_campaign(void *userdata, const char *worker, std::int64_t timeout_ms,
                                      std::int64_t *lease_ms) {
        return detail::contain<std::int32_t>(DIVVY_UNAVAILABLE, [&]() -> std::int32_t {
            *lease_ms = static_cast<election *>(userdata)->ask(worker, milliseconds(timeout_ms)).count();
            return DIVVY_OK;
        });
    }
    static std::int32_t call_resign(void *userdata, const char *worker, std::int64_t timeout_ms) {
        return detail::contain<std::int32_t>(DIVVY_UNAVAILABLE, [&]() -> std::int32_t {
            const resign &give_back = static_cast<election *>(userdata)->give_back;
            if (give_back) give_back(worker, milliseconds(timeout_ms));
            return DIVVY_OK;
        });
    }
    static std::int32_t call_source(void *userdata, divvy_partitions list, std::int64_t timeout_ms) {
        return detail::contain<std::int32_t>(DIVVY_SOURCE_FAILED, [&]() -> std::int32_t {
            partition_sink sink(list);
            (*static_cast<source *>(userdata))(sink, milliseconds(timeout_ms));
            return DIVVY_OK;
        });
    }
    static std::int32_t call_strategy(void *userdata, divvy_plan_input input, std::uint32_t *owners,
                                      std::size_t count) {
        return detail::contain<std::int32_t>(DIVVY_STRATEGY_FAILED, [&]() -> std::int32_t {
            const std::vector<std::uint32_t> plan = (*static_cast<strategy *>(userdata))(plan_input(input));
            if (plan.size() != count) return DIVVY_INVALID_PLAN;
            for (std::size_t index = 0; index < count; ++index) owners[index] = plan[index];
            return DIVVY_OK;
        });
    }
    using owner = detail::owned<divvy_config, divvy_config_free>;
    owner handle_;
};

/// A store that a fleet shares.
class store {
public:
    static store memory() {
        divvy_store handle = {};
        detail::errbuf e;
        e(divvy_store_memory_new(&handle, e.text, sizeof e.text)).check();
        return store(handle);
    }
    static store nats(const config &settings, milliseconds timeout) {
        divvy_store handle = {};
        detail::errbuf e;
        e(divvy_store_nats_connect(settings.get(), timeout.count(), &handle, e.text, sizeof e.text)).check();
        return store(handle);
    }
    void ensure(divvy_bucket bucket, milliseconds ttl, milliseconds timeout) {
        detail::errbuf e;
        e(divvy_store_ensure(get(), bucket, ttl.count(), timeout.count(), e.text, sizeof e.text)).check();
    }
    result try_put(divvy_bucket bucket, const std::string &key, text_view value, milliseconds timeout) {
        detail::errbuf e;
        return e(divvy_store_put(get(), bucket, key.c_str(), value.data(), value.size(), timeout.count(),
                                 e.text, sizeof e.text));
    }
    void put(divvy_bucket bucket, const std::string &key, text_view value, milliseconds timeout) {
        try_put(bucket, key, value, timeout).check();
    }
    void remove(divvy_bucket bucket, const std::string &key, milliseconds timeout) {
        detail::errbuf e;
        e(divvy_store_delete(get(), bucket, key.c_str(), timeout.count(), e.text, sizeof e.text)).check();
    }
    /// Reads a value; returns false if there is none.
    bool get_value(divvy_bucket bucket, const std::string &key, milliseconds timeout, std::string &value) {
        divvy_text text = {};
        detail::errbuf e;
        const result read = e(divvy_store_get(get(), bucket, key.c_str(), timeout.count(), &text, e.text,
                                              sizeof e.text));
        if (read.status() == DIVVY_NOT_FOUND) return false;
        read.check();
        value = detail::to_string(text);
        return true;
    }
    result try_stop(milliseconds timeout) {
        detail::errbuf e;
        return e(divvy_store_stop(get(), timeout.count(), e.text, sizeof e.text));
    }
    divvy_store get() const noexcept { return handle_.get(); }

private:
    using owner = detail::owned<divvy_store, divvy_store_free>;
    explicit store(divvy_store handle) noexcept : handle_(handle) {}
    owner handle_;
};

/// A subscription with a callback. The destructor ends it and waits up to 5 s for a running callback.
class subscription {
public:
    subscription() = default;
    explicit subscription(divvy_subscription handle) noexcept : handle_(handle) {}
    result try_unsubscribe(milliseconds timeout) {
        detail::errbuf e;
        const result ended = e(divvy_subscription_free(handle_.get(), timeout.count(), e.text, sizeof e.text));
        if (ended) handle_.release();
        return ended;
    }
    explicit operator bool() const noexcept { return static_cast<bool>(handle_); }

private:
    detail::owned<divvy_subscription, detail::free_subscription> handle_;
};

/// A queue of events.
class events {
public:
    explicit events(divvy_events handle) noexcept : handle_(handle) {}
    /// Waits for the next event and passes it to `see`; 0 ms does not wait. Returns OK, TIMED_OUT, WOKEN
    /// or CLOSED; throws on failure.
    template <class See> divvy_status poll(milliseconds timeout, See &&see) {
        return take(timeout.count(), std::forward<See>(see));
    }
    /// Waits for the next event without a limit.
    template <class See> divvy_status wait(See &&see) { return take(-1, std::forward<See>(see)); }
    void wake() {
        detail::errbuf e;
        e(divvy_events_wake(handle_.get(), e.text, sizeof e.text)).check();
    }
    int fd() const {
        int fd = -1;
        detail::errbuf e;
        e(divvy_events_fd(handle_.get(), &fd, e.text, sizeof e.text)).check();
        return fd;
    }

private:
    template <class See> divvy_status take(std::int64_t timeout_ms, See &&see) {
        divvy_event handle = {};
        detail::errbuf e;
        const result polled =
            e(divvy_events_poll(handle_.get(), timeout_ms, &handle, e.text, sizeof e.text));
        switch (polled.status()) {
        case DIVVY_TIMED_OUT:
        case DIVVY_WOKEN:
        case DIVVY_CLOSED:
            return polled.status();
        default:
            polled.check();
        }
        detail::owned<divvy_event, divvy_event_free> owner(handle);
        std::forward<See>(see)(event(handle));
        return DIVVY_OK;
    }
    detail::owned<divvy_events, divvy_events_free> handle_;
};

namespace detail {

using callback = std::function<void(const event &)>;

inline void call_back(void *userdata, divvy_event handle) {
    contain(0, [&] {
        (*static_cast<callback *>(userdata))(event(handle));
        return 0;
    });
}

/// Subscribes a callback with a function of the C header.
template <class Handle>
subscription subscribe(divvy_status (*with)(Handle, std::int32_t, divvy_event_fn, void *, divvy_destroy_fn,
                                            divvy_subscription *, char *, std::size_t),
                       Handle handle, std::int32_t interest, callback see) {
    std::unique_ptr<callback> userdata(new callback(std::move(see)));
    divvy_subscription made = {};
    errbuf e;
    e(with(handle, interest, call_back, userdata.get(), destroy<callback>, &made, e.text, sizeof e.text))
        .check();
    userdata.release();
    return subscription(made);
}

} // namespace detail

/// A calculator. The destructor stops it with a timeout of 10 s; do not run it inside a callback.
class calculator {
public:
    using callback = detail::callback;

    calculator(const config &settings, const store &shared) {
        divvy_calculator handle = {};
        detail::errbuf e;
        e(divvy_calculator_new(settings.get(), shared.get(), &handle, e.text, sizeof e.text)).check();
        handle_ = owner(handle);
    }
    result try_start(milliseconds timeout) {
        detail::errbuf e;
        return e(divvy_calculator_start(get(), timeout.count(), e.text, sizeof e.text));
    }
    void start(milliseconds timeout) { try_start(timeout).check(); }
    result try_stop(milliseconds timeout) {
        detail::errbuf e;
        return e(divvy_calculator_stop(get(), timeout.count(), e.text, sizeof e.text));
    }
    void stop(milliseconds timeout) { try_stop(timeout).check(); }
    bool is_started() const noexcept { return divvy_calculator_is_started(get()) == 1; }
    divvy_calculator_state state() const noexcept { return static_cast<divvy_calculator_state>(divvy_calculator_get_state(get())); }
    divvy_reason scaling_reason() const noexcept {
        return static_cast<divvy_reason>(divvy_calculator_scaling_reason(get()));
    }
    std::int64_t current_version() const noexcept { return divvy_calculator_current_version(get()); }
    result try_trigger_rebalance(milliseconds timeout, std::int64_t *version = nullptr) {
        detail::errbuf e;
        return e(divvy_calculator_trigger_rebalance(get(), timeout.count(), version, e.text, sizeof e.text));
    }
    std::int64_t trigger_rebalance(milliseconds timeout) {
        std::int64_t version = 0;
        try_trigger_rebalance(timeout, &version).check();
        return version;
    }
    std::int64_t refresh(milliseconds timeout) {
        std::int64_t version = 0;
        detail::errbuf e;
        e(divvy_calculator_refresh(get(), timeout.count(), &version, e.text, sizeof e.text)).check();
        return version;
    }
    void set_partitions(const partitions &list) {
        detail::errbuf e;
        e(divvy_calculator_set_partitions(get(), list.get(), e.text, sizeof e.text)).check();
    }
    std::string status_json() const {
        divvy_text text = {};
        detail::errbuf e;
        e(divvy_calculator_status_json(get(), &text, e.text, sizeof e.text)).check();
        return detail::to_string(text);
    }
    std::string metrics() const {
        divvy_text text = {};
        detail::errbuf e;
        e(divvy_calculator_metrics(get(), &text, e.text, sizeof e.text)).check();
        return detail::to_string(text);
    }
    subscription subscribe(divvy_event_filter interest, callback see) {
        return detail::subscribe(divvy_calculator_subscribe, get(), interest, std::move(see));
    }
    events open_events(divvy_event_filter interest) {
        divvy_events handle = {};
        detail::errbuf e;
        e(divvy_calculator_events(get(), interest, &handle, e.text, sizeof e.text)).check();
        return events(handle);
    }
    divvy_calculator get() const noexcept { return handle_.get(); }

private:
    using owner = detail::owned<divvy_calculator, detail::free_calculator>;
    owner handle_;
};

/// A manager: one worker's lifecycle. The destructor leaves the fleet with a timeout of 10 s; do not run
/// it inside a callback.
class manager {
public:
    using callback = detail::callback;

    manager(const config &settings, const store &shared) {
        divvy_manager handle = {};
        detail::errbuf e;
        e(divvy_manager_new(settings.get(), shared.get(), &handle, e.text, sizeof e.text)).check();
        handle_ = owner(handle);
    }
    result try_start(milliseconds timeout) {
        detail::errbuf e;
        return e(divvy_manager_start(get(), timeout.count(), e.text, sizeof e.text));
    }
    void start(milliseconds timeout) { try_start(timeout).check(); }
    result try_stop(divvy_departure departure, milliseconds timeout) {
        detail::errbuf e;
        return e(divvy_manager_stop(get(), departure, timeout.count(), e.text, sizeof e.text));
    }
    void stop(divvy_departure departure, milliseconds timeout) { try_stop(departure, timeout).check(); }
    bool is_started() const noexcept { return divvy_manager_is_started(get()) == 1; }
    bool is_leader() const noexcept { return divvy_manager_is_leader(get()) == 1; }
    divvy_manager_state state() const noexcept {
        return static_cast<divvy_manager_state>(divvy_manager_get_state(get()));
    }
    /// Waits for a state; returns false after the timeout.
    bool wait_state(divvy_manager_state state, milliseconds timeout) const {
        detail::errbuf e;
        const result waited =
            e(divvy_manager_wait_state(get(), state, timeout.count(), e.text, sizeof e.text));
        if (waited.status() == DIVVY_TIMED_OUT) return false;
        waited.check();
        return true;
    }
    /// Returns the worker's id; empty if it has none.
    std::string worker_id() const { return worker(divvy_manager_worker_id); }
    /// Returns the leader's id; empty if no leader is known.
    std::string leader() const { return worker(divvy_manager_leader); }
    divvy::assignment assignment() const {
        divvy_assignment handle = {};
        detail::errbuf e;
        e(divvy_manager_assignment(get(), &handle, e.text, sizeof e.text)).check();
        return divvy::assignment(handle);
    }
    result try_refresh_partitions(milliseconds timeout, std::int64_t *version = nullptr) {
        detail::errbuf e;
        return e(divvy_manager_refresh_partitions(get(), timeout.count(), version, e.text, sizeof e.text));
    }
    result try_trigger_rebalance(milliseconds timeout, std::int64_t *version = nullptr) {
        detail::errbuf e;
        return e(divvy_manager_trigger_rebalance(get(), timeout.count(), version, e.text, sizeof e.text));
    }
    void set_partitions(const partitions &list) {
        detail::errbuf e;
        e(divvy_manager_set_partitions(get(), list.get(), e.text, sizeof e.text)).check();
    }
    std::string status_json() const {
        divvy_text text = {};
        detail::errbuf e;
        e(divvy_manager_status_json(get(), &text, e.text, sizeof e.text)).check();
        return detail::to_string(text);
    }
    std::string metrics() const {
        divvy_text text = {};
        detail::errbuf e;
        e(divvy_manager_metrics(get(), &text, e.text, sizeof e.text)).check();
        return detail::to_string(text);
    }
    subscription subscribe(divvy_manager_event_filter interest, callback see) {
        return detail::subscribe(divvy_manager_subscribe, get(), interest, std::move(see));
    }
    events open_events(divvy_manager_event_filter interest) {
        divvy_events handle = {};
        detail::errbuf e;
        e(divvy_manager_events(get(), interest, &handle, e.text, sizeof e.text)).check();
        return events(handle);
    }
    divvy_manager get() const noexcept { return handle_.get(); }

private:
    std::string worker(divvy_status (*read)(divvy_manager, divvy_text *, char *, std::size_t)) const {
        divvy_text text = {};
        detail::errbuf e;
        const result told = e(read(get(), &text, e.text, sizeof e.text));
        if (told.status() == DIVVY_NOT_FOUND) return std::string();
        told.check();
        return detail::to_string(text);
    }
    using owner = detail::owned<divvy_manager, detail::free_manager>;
    owner handle_;
};

/// Sets the log callback of the process; an empty function disables logging.
inline void set_log(divvy_log_level max_level,
                    std::function<void(divvy_log_level, const char *, const std::string &)> tell) {
    using function = std::function<void(divvy_log_level, const char *, const std::string &)>;
    struct trampoline {
        static void call(void *userdata, std::int32_t level, const char *target, const char *message,
                         std::size_t length) {
            detail::contain(0, [&] {
                (*static_cast<function *>(userdata))(static_cast<divvy_log_level>(level), target,
                                                     std::string(message, length));
                return 0;
            });
        }
    };
    detail::errbuf e;
    if (!tell) {
        e(divvy_log_set(DIVVY_LOG_OFF, nullptr, nullptr, nullptr, e.text, sizeof e.text)).check();
        return;
    }
    std::unique_ptr<function> userdata(new function(std::move(tell)));
    e(divvy_log_set(max_level, trampoline::call, userdata.get(), detail::destroy<function>, e.text,
                    sizeof e.text))
        .check();
    userdata.release();
}

} // namespace divvy

#endif
