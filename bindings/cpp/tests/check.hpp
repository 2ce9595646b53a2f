// What the C++ tests share. Works without exceptions.
#ifndef DIVVY_TESTS_CHECK_HPP
#define DIVVY_TESTS_CHECK_HPP

#include <divvy.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);  \
            std::abort();                                                                 \
        }                                                                                 \
    } while (0)

namespace {

const std::chrono::milliseconds timeout = std::chrono::seconds(20);

template <class Condition> inline void wait_until(Condition condition) {
    const auto limit = std::chrono::steady_clock::now() + timeout;
    while (!condition()) {
        CHECK(std::chrono::steady_clock::now() < limit);
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
}

} // namespace

#endif
