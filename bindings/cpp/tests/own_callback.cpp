// Destroying a calculator inside its own callback aborts the process with a message. Tested in a child
// process, forked before any thread exists.
#include "check.hpp"

#include <sys/wait.h>
#include <unistd.h>

using std::chrono::seconds;

static divvy::store store_with_a_worker() {
    divvy::store store = divvy::store::memory();
    store.ensure(DIVVY_BUCKET_HEARTBEAT, seconds(3600), timeout);
    store.put(DIVVY_BUCKET_HEARTBEAT, "heartbeat.a", "alive", timeout);
    return store;
}

static divvy::config settings() {
    return divvy::config{{"heartbeat_ttl", "1h"}, {"cooldown", "1ms"}, {"cold_start_window", "10ms"}};
}

int main() {
    int ends[2];
    CHECK(pipe(ends) == 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        dup2(ends[1], 2);
        std::set_terminate([] { _exit(42); });
        divvy::store store = store_with_a_worker();
        std::unique_ptr<divvy::calculator> calculator(new divvy::calculator(settings(), store));
        divvy::subscription subscription =
            calculator->subscribe(DIVVY_FILTER_STATE, [&](const divvy::event &) { calculator.reset(); });
        calculator->start(timeout);
        std::this_thread::sleep_for(timeout);
        _exit(1);
    }
    close(ends[1]);
    char message[256] = "";
    std::size_t length = 0;
    for (ssize_t count; (count = read(ends[0], message + length, sizeof message - 1 - length)) > 0;)
        length += static_cast<std::size_t>(count);
    close(ends[0]);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    CHECK(std::string(message) == 
          "divvy::calculator cannot be destroyed inside one of its own callbacks: DIVVY_WOULD_DEADLOCK\n");
    return 0;
}
