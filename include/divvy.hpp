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
// Objects are move-only and own their handle. Every call that can fail has a form whose name begins
// with try_: it returns a divvy::result and throws only std::bad_alloc. The other form throws
// divvy::error. With -fno-exceptions, or with DIVVY_NO_EXCEPTIONS defined, only the try_ forms exist.
// Objects are then made empty and filled by try_create():
//
//     divvy::store store;
//     divvy::result made = divvy::store::try_open(config, std::chrono::seconds(5), store);
//     if (!made) std::fprintf(stderr, "%s\n", made.detail().c_str());
//
// A destructor waits until what it owns has ended, however long that takes: a callback that runs may
// use what the host destroys next. Call try_stop() or try_unsubscribe() before to wait for a limited
// time. Destroying a calculator or manager inside one of its own callbacks would wait for itself, so
// it writes a message to stderr and calls std::terminate().
//
// A callback that throws does no harm: the exception is caught, its text is reported to the library
// (see divvy_callback_set_error() in divvy.h), and it is handed to the handler of
// set_exception_handler(). After a stop or an unsubscribe, callbacks and what they own are gone.
#ifndef DIVVY_HPP
#define DIVVY_HPP

#include <divvy.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
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

#if !defined(DIVVY_NO_EXCEPTIONS)
/// A status with its detail, as thrown.
class error : public std::runtime_error {
public:
    error(divvy_status status, const std::string &detail, failure fields = failure())
        : std::runtime_error(std::string(divvy_status_name(status)) + ": " + detail), status_(status),
          fields_(std::make_shared<failure>(std::move(fields))) {}
    divvy_status status() const noexcept { return status_; }
    bool is_retriable() const noexcept { return divvy_status_is_retriable(status_) != 0; }
    const std::string &operation() const noexcept { return fields_->operation; }
    const std::string &key() const noexcept { return fields_->key; }
    std::uint32_t attempts() const noexcept { return fields_->attempts; }

private:
    divvy_status status_;
    std::shared_ptr<const failure> fields_; // shared, because copying what is thrown must not throw
};
#endif

/// How a call ended: converts to true on success. The try_ functions return it.
class result {
public:
    result() noexcept : status_(DIVVY_OK) {}
    result(divvy_status status, const char *detail, failure fields = failure())
        : status_(status), detail_(status ? detail : ""), fields_(std::move(fields)) {}
    explicit operator bool() const noexcept { return status_ == DIVVY_OK; }
    divvy_status status() const noexcept { return status_; }
    const std::string &detail() const noexcept { return detail_; }
    const std::string &operation() const noexcept { return fields_.operation; }
    const std::string &key() const noexcept { return fields_.key; }
    std::uint32_t attempts() const noexcept { return fields_.attempts; }
    bool is_retriable() const noexcept { return divvy_status_is_retriable(status_) != 0; }
#if !defined(DIVVY_NO_EXCEPTIONS)
    /// Throws the failure, if it is one.
    void check() const {
        if (status_ != DIVVY_OK) throw error(status_, detail_, fields_);
    }
#endif

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

/// What ends the waiting calls of this thread, see class cancel.
inline divvy_cancel &current_cancel() noexcept {
    static thread_local divvy_cancel value = divvy_cancel();
    return value;
}

/// Frees a handle whose callbacks may still run, waiting for them without limit.
template <class Free> divvy_status free_without_limit(const char *what, Free free) noexcept {
    bool was_cancelled = false, has_failed = false;
    for (;;) {
        const divvy_status status = free();
        switch (status) {
        case DIVVY_TIMED_OUT:
            continue;
        case DIVVY_OK:
        case DIVVY_BAD_HANDLE: // freed by the C function
        case DIVVY_FORKED:     // the parent's, with all that it owns
            if (was_cancelled) divvy_cancel_use(current_cancel(), nullptr, 0);
            return status;
        case DIVVY_CANCELLED: // nothing may leak because the calls around a destructor were cancelled
            if (!was_cancelled) {
                was_cancelled = true;
                divvy_cancel_use(divvy_cancel(), nullptr, 0);
                continue;
            }
            break;
        case DIVVY_PANICKED: // reported once
            if (!has_failed) {
                has_failed = true;
                continue;
            }
            break;
        default:
            break;
        }
        std::fprintf(stderr, "%s cannot be destroyed%s: %s\n", what,
                     status == DIVVY_WOULD_DEADLOCK ? " inside one of its own callbacks" : "",
                     divvy_status_name(status));
        std::terminate();
    }
}
inline divvy_status free_calculator(divvy_calculator handle) noexcept {
    return free_without_limit("divvy::calculator",
                              [handle] { return divvy_calculator_free(handle, nullptr, 0); });
}
inline divvy_status free_manager(divvy_manager handle) noexcept {
    return free_without_limit("divvy::manager", [handle] { return divvy_manager_free(handle, nullptr, 0); });
}
inline divvy_status free_subscription(divvy_subscription handle) noexcept {
    return free_without_limit("divvy::subscription",
                              [handle] { return divvy_subscription_free(handle, 5000, nullptr, 0); });
}

template <class T> void destroy(void *userdata) { delete static_cast<T *>(userdata); }

using exception_handler = std::function<void()>;
inline exception_handler &handler() {
    static exception_handler value;
    return value;
}

#if !defined(DIVVY_NO_EXCEPTIONS)
/// Inside a catch block.
inline void handle_thrown() noexcept {
    try {
        if (handler()) handler()();
    } catch (...) {
    }
}
#endif

/// Runs a callback of the host; what it throws ends here.
template <class Fallback, class Body> Fallback contain(Fallback fallback, Body &&body) noexcept {
#if !defined(DIVVY_NO_EXCEPTIONS)
    try {
        return body();
    } catch (const std::exception &thrown) {
        divvy_callback_set_error(thrown.what(), nullptr, 0);
        handle_thrown();
    } catch (...) {
        divvy_callback_set_error("an exception that is no std::exception", nullptr, 0);
        handle_thrown();
    }
    return fallback;
#else
    (void)fallback;
    return body();
#endif
}

inline void take_text(divvy_text handle, std::string &out) {
    owned<divvy_text, divvy_text_free> text(handle);
    std::size_t length = 0;
    const char *data = divvy_text_data(text.get(), &length);
    out.assign(data, length);
}

/// Reads a text with a function of the C header; `out` stays as it is on a failure.
template <class Handle>
result read_text(divvy_status (*read)(Handle, divvy_text *, char *, std::size_t), Handle handle,
                 std::string &out) {
    divvy_text text = {};
    errbuf e;
    const result ended = e(read(handle, &text, e.text, sizeof e.text));
    if (ended) take_text(text, out);
    return ended;
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
    /// Empty.
    assignment() noexcept {}
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
    /// Set for DIVVY_EVENT_MALFORMED, as is key().
    divvy_bucket bucket() const noexcept { return static_cast<divvy_bucket>(divvy_event_bucket(handle_)); }
    std::string value() const { return text(divvy_event_value); }
    std::string json() const { return text(divvy_event_json); }
    /// Set for DIVVY_EVENT_BREAKER.
    divvy_breaker_state breaker_state() const noexcept {
        return static_cast<divvy_breaker_state>(divvy_event_state(handle_));
    }
    /// Set for DIVVY_EVENT_MANAGER_STATE.
    divvy_manager_state manager_state() const noexcept {
        return static_cast<divvy_manager_state>(divvy_event_state(handle_));
    }
    /// Of DIVVY_EVENT_ASSIGNMENT, a failure for other kinds.
    result try_assignment(divvy::assignment &out) const {
        divvy_assignment handle = {};
        detail::errbuf e;
        const result read = e(divvy_event_assignment(handle_, &handle, e.text, sizeof e.text));
        if (read) out = divvy::assignment(handle);
        return read;
    }
#if !defined(DIVVY_NO_EXCEPTIONS)
    divvy::assignment assignment() const {
        divvy::assignment out;
        try_assignment(out).check();
        return out;
    }
#endif
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
    /// Empty.
    explicit cancel(std::nullptr_t) noexcept {}
    static result try_create(cancel &out) {
        divvy_cancel handle = {};
        detail::errbuf e;
        const result made = e(divvy_cancel_new(&handle, e.text, sizeof e.text));
        if (made) out.handle_ = owner(handle);
        return made;
    }
    /// Ends the calls that wait now and those that would; they fail with DIVVY_CANCELLED.
    result try_fire() {
        detail::errbuf e;
        return e(divvy_cancel_fire(handle_.get(), e.text, sizeof e.text));
    }
    /// Runs `call` on this thread; what waits in it ends when this is fired. Not one in another. The
    /// result is about the cancel: `call` ran if it is true.
    template <class Call> result try_run(Call &&call) {
        detail::errbuf e;
        const result used = e(divvy_cancel_use(handle_.get(), e.text, sizeof e.text));
        if (!used) return used;
        detail::current_cancel() = handle_.get();
        struct back {
            ~back() {
                detail::current_cancel() = divvy_cancel();
                divvy_cancel_use(divvy_cancel(), nullptr, 0);
            }
        } after;
        (void)after;
        std::forward<Call>(call)();
        return used;
    }
#if !defined(DIVVY_NO_EXCEPTIONS)
    cancel() { try_create(*this).check(); }
    void fire() { try_fire().check(); }
    template <class Call> void run(Call &&call) { try_run(std::forward<Call>(call)).check(); }
#endif
    divvy_cancel get() const noexcept { return handle_.get(); }

private:
    using owner = detail::owned<divvy_cancel, divvy_cancel_free>;
    owner handle_;
};

/// A list of partitions.
class partitions {
public:
    /// Empty.
    explicit partitions(std::nullptr_t) noexcept {}
    static result try_create(partitions &out) {
        divvy_partitions handle = {};
        detail::errbuf e;
        const result made = e(divvy_partitions_new(&handle, e.text, sizeof e.text));
        if (made) out.handle_ = owner(handle);
        return made;
    }
    result try_add(const std::vector<std::string> &keys, std::int64_t weight = 0) {
        return add_to(handle_.get(), keys, weight);
    }
    result try_add_json(text_view json) { return add_json_to(handle_.get(), json); }
#if !defined(DIVVY_NO_EXCEPTIONS)
    partitions() { try_create(*this).check(); }
    partitions &add(const std::vector<std::string> &keys, std::int64_t weight = 0) {
        try_add(keys, weight).check();
        return *this;
    }
    partitions &add_json(text_view json) {
        try_add_json(json).check();
        return *this;
    }
#endif
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
    static result add_json_to(divvy_partitions list, text_view json) {
        detail::errbuf e;
        return e(divvy_partitions_add_json(list, json.data(), json.size(), e.text, sizeof e.text));
    }

private:
    using owner = detail::owned<divvy_partitions, divvy_partitions_free>;
    owner handle_;
};

/// The list that a partition source fills.
class partition_sink {
public:
    explicit partition_sink(divvy_partitions list) noexcept : list_(list), has_failed_(false) {}
    result try_add(const std::vector<std::string> &keys, std::int64_t weight = 0) {
        return noted(partitions::add_to(list_, keys, weight));
    }
    result try_add_json(text_view json) { return noted(partitions::add_json_to(list_, json)); }
    /// The source has failed, with this text: the last list stays in force. So does a partition that
    /// cannot be added.
    void fail(const std::string &message) noexcept {
        has_failed_ = true;
        divvy_callback_set_error(message.c_str(), nullptr, 0);
    }
    bool has_failed() const noexcept { return has_failed_; }
#if !defined(DIVVY_NO_EXCEPTIONS)
    void add(const std::vector<std::string> &keys, std::int64_t weight = 0) { try_add(keys, weight).check(); }
    void add_json(text_view json) { try_add_json(json).check(); }
#endif

private:
    result noted(result added) {
        if (!added) fail(added.detail());
        return added;
    }
    divvy_partitions list_;
    bool has_failed_;
};

/// The credentials that a callback supplies: a token, or a JWT with the signature of the nonce.
class credentials_sink {
public:
    explicit credentials_sink(divvy_credentials handle) noexcept : handle_(handle), has_failed_(false) {}
    result try_set_token(const std::string &token) {
        detail::errbuf e;
        return noted(e(divvy_credentials_set_token(handle_, token.c_str(), e.text, sizeof e.text)));
    }
    /// The signature is the 64 bytes of Ed25519, not encoded.
    result try_set_jwt(text_view jwt, text_view signature) {
        detail::errbuf e;
        return noted(e(divvy_credentials_set_jwt(handle_, jwt.data(), jwt.size(), signature.data(),
                                                 signature.size(), e.text, sizeof e.text)));
    }
    /// The login fails with this text. So does one whose credentials cannot be set.
    void fail(const std::string &message) noexcept {
        has_failed_ = true;
        divvy_callback_set_error(message.c_str(), nullptr, 0);
    }
    bool has_failed() const noexcept { return has_failed_; }
#if !defined(DIVVY_NO_EXCEPTIONS)
    void set_token(const std::string &token) { try_set_token(token).check(); }
    void set_jwt(text_view jwt, text_view signature) { try_set_jwt(jwt, signature).check(); }
#endif

private:
    result noted(result set) {
        if (!set) fail(set.detail());
        return set;
    }
    divvy_credentials handle_;
    bool has_failed_;
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

/// One setting; see docs/settings.md.
struct setting {
    std::string name, type, default_value, range, help, value, origin;
};

/// Settings by name, and the host's callbacks.
class config {
public:
    using source = std::function<void(partition_sink &, milliseconds)>;
    using strategy = std::function<std::vector<std::uint32_t>(const plan_input &)>;

    /// For how long the worker leads from now on, zero when another one does. Negative, or one that
    /// throws: it does not know, and a leader continues until its last grant is nearly over.
    using campaign = std::function<milliseconds(const std::string &worker, milliseconds timeout)>;
    using resign = std::function<void(const std::string &worker, milliseconds timeout)>;
    /// Supplies the NATS credentials of one login for the nonce of the server.
    using credentials = std::function<void(credentials_sink &, text_view nonce)>;

    /// Empty.
    explicit config(std::nullptr_t) noexcept {}
    static result try_create(config &out) {
        divvy_config handle = {};
        detail::errbuf e;
        const result made = e(divvy_config_new(&handle, e.text, sizeof e.text));
        if (made) out.handle_ = owner(handle);
        return made;
    }
    result try_set(const std::string &key, const std::string &value) {
        detail::errbuf e;
        return e(divvy_config_set(get(), key.c_str(), value.c_str(), e.text, sizeof e.text));
    }
    result try_set(const std::string &key, milliseconds value) {
        return try_set(key, std::to_string(value.count()) + "ms");
    }
    result try_merge_json(text_view json) {
        detail::errbuf e;
        return e(divvy_config_merge_json(get(), json.data(), json.size(), e.text, sizeof e.text));
    }
    result try_merge_env(const std::string &prefix = "DIVVY_") {
        detail::errbuf e;
        return e(divvy_config_merge_env(get(), prefix.c_str(), e.text, sizeof e.text));
    }
    result try_dump(std::string &out) const { return detail::read_text(divvy_config_dump, get(), out); }
    /// A source that throws or calls partition_sink::fail() has failed: the last plan stays, and the
    /// library calls it again.
    result try_set_source(source fill) {
        std::unique_ptr<source> userdata(new source(std::move(fill)));
        detail::errbuf e;
        return taken(userdata, e(divvy_config_set_source(get(), call_source, userdata.get(),
                                                         detail::destroy<source>, e.text, sizeof e.text)));
    }
    /// A strategy that throws has failed: the last plan stays, and the library calls it again.
    result try_set_strategy(const std::string &name, strategy divide) {
        std::unique_ptr<strategy> userdata(new strategy(std::move(divide)));
        detail::errbuf e;
        return taken(userdata,
                     e(divvy_config_set_strategy(get(), name.c_str(), call_strategy, userdata.get(),
                                                 detail::destroy<strategy>, e.text, sizeof e.text)));
    }
    /// An election of the host's, for managers.
    result try_set_election(campaign ask, resign give_back = resign()) {
        std::unique_ptr<election> userdata(new election{std::move(ask), std::move(give_back)});
        detail::errbuf e;
        return taken(userdata,
                     e(divvy_config_set_election(get(), call_campaign, call_resign, userdata.get(),
                                                 detail::destroy<election>, e.text, sizeof e.text)));
    }
    /// If the callback throws or calls credentials_sink::fail(), the login fails.
    result try_set_credentials(credentials supply) {
        std::unique_ptr<credentials> userdata(new credentials(std::move(supply)));
        detail::errbuf e;
        return taken(userdata,
                     e(divvy_config_set_credentials(get(), call_credentials, userdata.get(),
                                                    detail::destroy<credentials>, e.text, sizeof e.text)));
    }
#if !defined(DIVVY_NO_EXCEPTIONS)
    config() { try_create(*this).check(); }
    config(std::initializer_list<std::pair<const char *, const char *>> settings) : config() {
        for (const auto &setting : settings) set(setting.first, setting.second);
    }
    template <class Value> config &set(const std::string &key, const Value &value) {
        try_set(key, value).check();
        return *this;
    }
    config &merge_json(text_view json) {
        try_merge_json(json).check();
        return *this;
    }
    config &merge_env(const std::string &prefix = "DIVVY_") {
        try_merge_env(prefix).check();
        return *this;
    }
    std::string dump() const {
        std::string out;
        try_dump(out).check();
        return out;
    }
    /// Every setting, with its value in this configuration.
    std::vector<setting> settings() const {
        std::vector<setting> all;
        divvy_setting handle = {};
        const auto text = [&handle](divvy_setting_field field) {
            std::size_t length = 0;
            const char *data = divvy_setting_text(handle, field, &length);
            return std::string(data, length);
        };
        for (;;) {
            detail::errbuf e;
            const result found = e(divvy_setting_at(get(), all.size(), &handle, e.text, sizeof e.text));
            if (found.status() == DIVVY_NOT_FOUND) return all;
            found.check();
            all.push_back({text(DIVVY_SETTING_NAME), text(DIVVY_SETTING_TYPE),
                           text(DIVVY_SETTING_DEFAULT), text(DIVVY_SETTING_RANGE),
                           text(DIVVY_SETTING_HELP), text(DIVVY_SETTING_VALUE),
                           text(DIVVY_SETTING_ORIGIN)});
            divvy_setting_free(handle);
        }
    }
    /// If the source throws, the last plan remains in force and the source is called again.
    config &set_source(source fill) {
        try_set_source(std::move(fill)).check();
        return *this;
    }
    config &set_strategy(const std::string &name, strategy divide) {
        try_set_strategy(name, std::move(divide)).check();
        return *this;
    }
    config &set_election(campaign ask, resign give_back = resign()) {
        try_set_election(std::move(ask), std::move(give_back)).check();
        return *this;
    }
    config &set_credentials(credentials supply) {
        try_set_credentials(std::move(supply)).check();
        return *this;
    }
#endif
    divvy_config get() const noexcept { return handle_.get(); }

private:
    struct election {
        campaign ask;
        resign give_back;
    };
    /// The library owns userdata once the call succeeded.
    template <class T> static result taken(std::unique_ptr<T> &userdata, result set) {
        if (set) userdata.release();
        return set;
    }
    static std::int32_t call_campaign(void *userdata, const char *worker, std::int64_t timeout_ms,
                                      std::int64_t *lease_ms) {
        return detail::contain<std::int32_t>(DIVVY_UNAVAILABLE, [&]() -> std::int32_t {
            const milliseconds lease =
                static_cast<election *>(userdata)->ask(worker, milliseconds(timeout_ms));
            if (lease < milliseconds(0)) return DIVVY_UNAVAILABLE;
            *lease_ms = lease.count();
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
            return sink.has_failed() ? DIVVY_SOURCE_FAILED : DIVVY_OK;
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
    static std::int32_t call_credentials(void *userdata, const char *nonce, std::size_t length,
                                         divvy_credentials handle) {
        return detail::contain<std::int32_t>(DIVVY_UNAUTHORIZED, [&]() -> std::int32_t {
            credentials_sink sink(handle);
            (*static_cast<credentials *>(userdata))(sink, std::string(nonce, length));
            return sink.has_failed() ? DIVVY_UNAUTHORIZED : DIVVY_OK;
        });
    }
    using owner = detail::owned<divvy_config, divvy_config_free>;
    owner handle_;
};

/// A store that a fleet shares.
class store {
public:
    /// Empty.
    store() noexcept {}
    /// Opens the store that the setting "store" names: "nats" (the default) or "memory".
    static result try_open(const config &settings, milliseconds timeout, store &out) {
        divvy_store handle = {};
        detail::errbuf e;
        const result made =
            e(divvy_store_open(settings.get(), timeout.count(), &handle, e.text, sizeof e.text));
        if (made) out.handle_ = owner(handle);
        return made;
    }
    static result try_memory(store &out) {
        config settings(nullptr);
        result made = config::try_create(settings);
        if (made) made = settings.try_set("store", "memory");
        return made ? try_open(settings, milliseconds(0), out) : made;
    }
    result try_ensure(divvy_bucket bucket, milliseconds ttl, milliseconds timeout) {
        detail::errbuf e;
        return e(divvy_store_ensure(get(), bucket, ttl.count(), timeout.count(), e.text, sizeof e.text));
    }
    result try_put(divvy_bucket bucket, const std::string &key, text_view value, milliseconds timeout) {
        detail::errbuf e;
        return e(divvy_store_put(get(), bucket, key.c_str(), value.data(), value.size(), timeout.count(),
                                 e.text, sizeof e.text));
    }
    result try_remove(divvy_bucket bucket, const std::string &key, milliseconds timeout) {
        detail::errbuf e;
        return e(divvy_store_delete(get(), bucket, key.c_str(), timeout.count(), e.text, sizeof e.text));
    }
    /// Reads a value. The status is DIVVY_NOT_FOUND if there is none; `value` then stays as it is.
    result try_get_value(divvy_bucket bucket, const std::string &key, milliseconds timeout,
                         std::string &value) {
        divvy_text text = {};
        detail::errbuf e;
        const result read = e(divvy_store_get(get(), bucket, key.c_str(), timeout.count(), &text, e.text,
                                              sizeof e.text));
        if (read) detail::take_text(text, value);
        return read;
    }
    result try_stop(milliseconds timeout) {
        detail::errbuf e;
        return e(divvy_store_stop(get(), timeout.count(), e.text, sizeof e.text));
    }
#if !defined(DIVVY_NO_EXCEPTIONS)
    static store memory() {
        store out;
        try_memory(out).check();
        return out;
    }
    static store open(const config &settings, milliseconds timeout) {
        store out;
        try_open(settings, timeout, out).check();
        return out;
    }
    void ensure(divvy_bucket bucket, milliseconds ttl, milliseconds timeout) {
        try_ensure(bucket, ttl, timeout).check();
    }
    void put(divvy_bucket bucket, const std::string &key, text_view value, milliseconds timeout) {
        try_put(bucket, key, value, timeout).check();
    }
    void remove(divvy_bucket bucket, const std::string &key, milliseconds timeout) {
        try_remove(bucket, key, timeout).check();
    }
    /// Reads a value; returns false if there is none.
    bool get_value(divvy_bucket bucket, const std::string &key, milliseconds timeout, std::string &value) {
        const result read = try_get_value(bucket, key, timeout, value);
        if (read.status() == DIVVY_NOT_FOUND) return false;
        read.check();
        return true;
    }
#endif
    divvy_store get() const noexcept { return handle_.get(); }

private:
    using owner = detail::owned<divvy_store, divvy_store_free>;
    owner handle_;
};

/// A subscription with a callback. The destructor ends it and waits for a running callback without a
/// limit; inside a callback of the same calculator or manager it does not wait.
class subscription {
public:
    /// Empty.
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
    /// Empty.
    events() noexcept {}
    explicit events(divvy_events handle) noexcept : handle_(handle) {}
    /// Waits for the next event and passes it to `see`; 0 ms does not wait. Returns OK, or TIMED_OUT,
    /// WOKEN or CLOSED, which are no failures, or a failure.
    template <class See> result try_poll(milliseconds timeout, See &&see) {
        return take(timeout.count(), std::forward<See>(see));
    }
    /// Waits for the next event without a limit.
    template <class See> result try_wait(See &&see) { return take(-1, std::forward<See>(see)); }
    result try_wake() {
        detail::errbuf e;
        return e(divvy_events_wake(handle_.get(), e.text, sizeof e.text));
    }
    result try_fd(int &out) const {
        detail::errbuf e;
        return e(divvy_events_fd(handle_.get(), &out, e.text, sizeof e.text));
    }
#if !defined(DIVVY_NO_EXCEPTIONS)
    /// Waits for the next event and passes it to `see`; 0 ms does not wait. Returns OK, TIMED_OUT, WOKEN
    /// or CLOSED; throws on failure.
    template <class See> divvy_status poll(milliseconds timeout, See &&see) {
        return checked(try_poll(timeout, std::forward<See>(see)));
    }
    /// Waits for the next event without a limit.
    template <class See> divvy_status wait(See &&see) { return checked(try_wait(std::forward<See>(see))); }
    void wake() { try_wake().check(); }
    int fd() const {
        int out = -1;
        try_fd(out).check();
        return out;
    }
#endif

private:
#if !defined(DIVVY_NO_EXCEPTIONS)
    static divvy_status checked(const result &polled) {
        const divvy_status status = polled.status();
        if (status != DIVVY_TIMED_OUT && status != DIVVY_WOKEN && status != DIVVY_CLOSED) polled.check();
        return status;
    }
#endif
    template <class See> result take(std::int64_t timeout_ms, See &&see) {
        divvy_event handle = {};
        detail::errbuf e;
        const result polled =
            e(divvy_events_poll(handle_.get(), timeout_ms, &handle, e.text, sizeof e.text));
        if (!polled) return polled;
        detail::owned<divvy_event, divvy_event_free> owner(handle);
        std::forward<See>(see)(event(handle));
        return polled;
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
result subscribe(divvy_status (*with)(Handle, std::int32_t, divvy_event_fn, void *, divvy_destroy_fn,
                                      divvy_subscription *, char *, std::size_t),
                 Handle handle, std::int32_t filter, callback see, subscription &out) {
    std::unique_ptr<callback> userdata(new callback(std::move(see)));
    divvy_subscription made = {};
    errbuf e;
    const result subscribed =
        e(with(handle, filter, call_back, userdata.get(), destroy<callback>, &made, e.text, sizeof e.text));
    if (subscribed) {
        userdata.release();
        out = subscription(made);
    }
    return subscribed;
}

/// Opens a queue with a function of the C header.
template <class Handle>
result open_events(divvy_status (*open)(Handle, std::int32_t, divvy_events *, char *, std::size_t),
                   Handle handle, std::int32_t filter, events &out) {
    divvy_events made = {};
    errbuf e;
    const result opened = e(open(handle, filter, &made, e.text, sizeof e.text));
    if (opened) out = events(made);
    return opened;
}

} // namespace detail

/// A calculator. The destructor stops it and waits for its callbacks without a limit. Inside one of
/// them it terminates the process.
class calculator {
public:
    using callback = detail::callback;

    /// Empty.
    calculator() noexcept {}
    static result try_create(const config &settings, const store &shared, calculator &out) {
        divvy_calculator handle = {};
        detail::errbuf e;
        const result made =
            e(divvy_calculator_new(settings.get(), shared.get(), &handle, e.text, sizeof e.text));
        if (made) out.handle_ = owner(handle);
        return made;
    }
    result try_start(milliseconds timeout) {
        detail::errbuf e;
        return e(divvy_calculator_start(get(), timeout.count(), e.text, sizeof e.text));
    }
    result try_stop(milliseconds timeout) {
        detail::errbuf e;
        return e(divvy_calculator_stop(get(), timeout.count(), e.text, sizeof e.text));
    }
    bool is_started() const noexcept { return divvy_calculator_is_started(get()) == 1; }
    divvy_calculator_state state() const noexcept {
        return static_cast<divvy_calculator_state>(divvy_calculator_get_state(get()));
    }
    divvy_reason scaling_reason() const noexcept {
        return static_cast<divvy_reason>(divvy_calculator_scaling_reason(get()));
    }
    std::int64_t current_version() const noexcept { return divvy_calculator_current_version(get()); }
    result try_trigger_rebalance(milliseconds timeout, std::int64_t *version = nullptr) {
        detail::errbuf e;
        return e(divvy_calculator_trigger_rebalance(get(), timeout.count(), version, e.text, sizeof e.text));
    }
    result try_refresh(milliseconds timeout, std::int64_t *version = nullptr) {
        detail::errbuf e;
        return e(divvy_calculator_refresh(get(), timeout.count(), version, e.text, sizeof e.text));
    }
    result try_set_partitions(const partitions &list) {
        detail::errbuf e;
        return e(divvy_calculator_set_partitions(get(), list.get(), e.text, sizeof e.text));
    }
    result try_status_json(std::string &out) const {
        return detail::read_text(divvy_calculator_status_json, get(), out);
    }
    result try_metrics(std::string &out) const {
        return detail::read_text(divvy_calculator_metrics, get(), out);
    }
    result try_subscribe(divvy_event_filter filter, callback see, subscription &out) {
        return detail::subscribe(divvy_calculator_subscribe, get(), filter, std::move(see), out);
    }
    result try_open_events(divvy_event_filter filter, events &out) {
        return detail::open_events(divvy_calculator_events, get(), filter, out);
    }
#if !defined(DIVVY_NO_EXCEPTIONS)
    calculator(const config &settings, const store &shared) { try_create(settings, shared, *this).check(); }
    void start(milliseconds timeout) { try_start(timeout).check(); }
    void stop(milliseconds timeout) { try_stop(timeout).check(); }
    std::int64_t trigger_rebalance(milliseconds timeout) {
        std::int64_t version = 0;
        try_trigger_rebalance(timeout, &version).check();
        return version;
    }
    std::int64_t refresh(milliseconds timeout) {
        std::int64_t version = 0;
        try_refresh(timeout, &version).check();
        return version;
    }
    std::int64_t confirm_partitions(milliseconds timeout) {
        std::int64_t version = 0;
        detail::errbuf e;
        e(divvy_calculator_confirm_partitions(get(), timeout.count(), &version, e.text, sizeof e.text)).check();
        return version;
    }
    void set_partitions(const partitions &list) { try_set_partitions(list).check(); }
    std::string status_json() const {
        std::string out;
        try_status_json(out).check();
        return out;
    }
    std::string metrics() const {
        std::string out;
        try_metrics(out).check();
        return out;
    }
    subscription subscribe(divvy_event_filter filter, callback see) {
        subscription out;
        try_subscribe(filter, std::move(see), out).check();
        return out;
    }
    events open_events(divvy_event_filter filter) {
        events out;
        try_open_events(filter, out).check();
        return out;
    }
#endif
    divvy_calculator get() const noexcept { return handle_.get(); }

private:
    using owner = detail::owned<divvy_calculator, detail::free_calculator>;
    owner handle_;
};

/// A manager: one worker's lifecycle. The destructor leaves the fleet and waits for its callbacks
/// without a limit. Inside one of them it terminates the process.
class manager {
public:
    using callback = detail::callback;

    /// Empty.
    manager() noexcept {}
    static result try_create(const config &settings, const store &shared, manager &out) {
        divvy_manager handle = {};
        detail::errbuf e;
        const result made = e(divvy_manager_new(settings.get(), shared.get(), &handle, e.text, sizeof e.text));
        if (made) out.handle_ = owner(handle);
        return made;
    }
    result try_start(milliseconds timeout) {
        detail::errbuf e;
        return e(divvy_manager_start(get(), timeout.count(), e.text, sizeof e.text));
    }
    result try_stop(divvy_departure departure, milliseconds timeout) {
        detail::errbuf e;
        return e(divvy_manager_stop(get(), departure, timeout.count(), e.text, sizeof e.text));
    }
    bool is_started() const noexcept { return divvy_manager_is_started(get()) == 1; }
    /// For liveness probes, see divvy_manager_is_live().
    bool is_live() const noexcept { return divvy_manager_is_live(get()) == 1; }
    /// For readiness probes, see divvy_manager_is_ready().
    bool is_ready() const noexcept { return divvy_manager_is_ready(get()) == 1; }
    bool is_leader() const noexcept { return divvy_manager_is_leader(get()) == 1; }
    divvy_manager_state state() const noexcept {
        return static_cast<divvy_manager_state>(divvy_manager_get_state(get()));
    }
    /// Waits for a state. The status is DIVVY_TIMED_OUT after the timeout.
    result try_wait_state(divvy_manager_state state, milliseconds timeout) const {
        detail::errbuf e;
        return e(divvy_manager_wait_state(get(), state, timeout.count(), e.text, sizeof e.text));
    }
    /// Reads the worker's id. The status is DIVVY_NOT_FOUND if it has none.
    result try_worker_id(std::string &out) const {
        return detail::read_text(divvy_manager_worker_id, get(), out);
    }
    /// Reads the leader's id. The status is DIVVY_NOT_FOUND if no leader is known.
    result try_leader(std::string &out) const { return detail::read_text(divvy_manager_leader, get(), out); }
    result try_assignment(divvy::assignment &out) const {
        divvy_assignment handle = {};
        detail::errbuf e;
        const result read = e(divvy_manager_assignment(get(), &handle, e.text, sizeof e.text));
        if (read) out = divvy::assignment(handle);
        return read;
    }
    result try_confirm_partitions(milliseconds timeout, std::int64_t *version = nullptr) {
        detail::errbuf e;
        return e(divvy_manager_confirm_partitions(get(), timeout.count(), version, e.text, sizeof e.text));
    }
    result try_refresh_partitions(milliseconds timeout, std::int64_t *version = nullptr) {
        detail::errbuf e;
        return e(divvy_manager_refresh_partitions(get(), timeout.count(), version, e.text, sizeof e.text));
    }
    result try_trigger_rebalance(milliseconds timeout, std::int64_t *version = nullptr) {
        detail::errbuf e;
        return e(divvy_manager_trigger_rebalance(get(), timeout.count(), version, e.text, sizeof e.text));
    }
    result try_set_partitions(const partitions &list) {
        detail::errbuf e;
        return e(divvy_manager_set_partitions(get(), list.get(), e.text, sizeof e.text));
    }
    result try_status_json(std::string &out) const {
        return detail::read_text(divvy_manager_status_json, get(), out);
    }
    result try_metrics(std::string &out) const { return detail::read_text(divvy_manager_metrics, get(), out); }
    result try_subscribe(divvy_manager_event_filter filter, callback see, subscription &out) {
        return detail::subscribe(divvy_manager_subscribe, get(), filter, std::move(see), out);
    }
    result try_open_events(divvy_manager_event_filter filter, events &out) {
        return detail::open_events(divvy_manager_events, get(), filter, out);
    }
#if !defined(DIVVY_NO_EXCEPTIONS)
    manager(const config &settings, const store &shared) { try_create(settings, shared, *this).check(); }
    void start(milliseconds timeout) { try_start(timeout).check(); }
    void stop(divvy_departure departure, milliseconds timeout) { try_stop(departure, timeout).check(); }
    /// Waits for a state; returns false after the timeout.
    bool wait_state(divvy_manager_state state, milliseconds timeout) const {
        const result waited = try_wait_state(state, timeout);
        if (waited.status() == DIVVY_TIMED_OUT) return false;
        waited.check();
        return true;
    }
    /// Returns the worker's id; empty if it has none.
    std::string worker_id() const {
        std::string out;
        return found(try_worker_id(out)) ? out : std::string();
    }
    /// Returns the leader's id; empty if no leader is known.
    std::string leader() const {
        std::string out;
        return found(try_leader(out)) ? out : std::string();
    }
    divvy::assignment assignment() const {
        divvy::assignment out;
        try_assignment(out).check();
        return out;
    }
    void set_partitions(const partitions &list) { try_set_partitions(list).check(); }
    std::string status_json() const {
        std::string out;
        try_status_json(out).check();
        return out;
    }
    std::string metrics() const {
        std::string out;
        try_metrics(out).check();
        return out;
    }
    subscription subscribe(divvy_manager_event_filter filter, callback see) {
        subscription out;
        try_subscribe(filter, std::move(see), out).check();
        return out;
    }
    events open_events(divvy_manager_event_filter filter) {
        events out;
        try_open_events(filter, out).check();
        return out;
    }
#endif
    divvy_manager get() const noexcept { return handle_.get(); }

private:
#if !defined(DIVVY_NO_EXCEPTIONS)
    static bool found(const result &read) {
        if (read.status() == DIVVY_NOT_FOUND) return false;
        read.check();
        return true;
    }
#endif
    using owner = detail::owned<divvy_manager, detail::free_manager>;
    owner handle_;
};

/// One key=value of a log record.
struct log_field {
    std::string name;
    std::string value;
    bool is_number;
};

/// A log record: level, part of the library such as "divvy::calculator", text and fields.
struct log_record {
    divvy_log_level level;
    std::string target;
    std::string message;
    std::vector<log_field> fields;
};

/// Sets the log callback of the process; an empty function disables logging.
inline result try_set_log(divvy_log_level max_level, std::function<void(const log_record &)> write) {
    using function = std::function<void(const log_record &)>;
    struct trampoline {
        static void call(void *userdata, std::int32_t level, const char *target, const char *message,
                         std::size_t length, divvy_log_record record) {
            detail::contain(0, [&] {
                log_record line = {static_cast<divvy_log_level>(level), target,
                                   std::string(message, length), {}};
                for (std::size_t index = 0; index < divvy_log_field_count(record); index++)
                    line.fields.push_back({divvy_log_field_name(record, index, nullptr),
                                           divvy_log_field_value(record, index, nullptr),
                                           divvy_log_field_is_number(record, index) == 1});
                (*static_cast<function *>(userdata))(line);
                return 0;
            });
        }
    };
    detail::errbuf e;
    if (!write) return e(divvy_log_set(DIVVY_LOG_OFF, nullptr, nullptr, nullptr, e.text, sizeof e.text));
    std::unique_ptr<function> userdata(new function(std::move(write)));
    const result set = e(divvy_log_set(max_level, trampoline::call, userdata.get(),
                                       detail::destroy<function>, e.text, sizeof e.text));
    if (set) userdata.release();
    return set;
}
#if !defined(DIVVY_NO_EXCEPTIONS)
inline void set_log(divvy_log_level max_level, std::function<void(const log_record &)> write) {
    try_set_log(max_level, std::move(write)).check();
}
#endif

} // namespace divvy

#endif
