/* 1 000 lifecycles leave nothing behind: threads, descriptors and memory do not grow. */
#include "check.h"

static int entries(const char *path) {
    DIR *directory = opendir(path);
    int count = 0;
    CHECK(directory != NULL);
    while (readdir(directory)) count++;
    closedir(directory);
    return count;
}

static long resident_kib(void) {
    long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%ld %ld", &total, &resident) == 2);
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void on_event(void *userdata, divvy_event event) {
    ++*(volatile int *)userdata;
    CHECK(divvy_event_get_kind(event) > 0);
}

/* With its own store, which frees the state of its listeners. */
static void one_life(divvy_config config) {
    divvy_store store = new_store(config);
    divvy_calculator calculator = {0};
    divvy_subscription subscription = {0};
    divvy_events events = {0};
    divvy_event event = {0};
    int fd = -1, calls = 0;
    OK(divvy_calculator_new(config, store, &calculator, ERR));
    OK(divvy_calculator_subscribe(calculator, DIVVY_FILTER_STATE, on_event, &calls, NULL,
                                  &subscription, ERR));
    OK(divvy_calculator_events(calculator, DIVVY_FILTER_STATE, &events, ERR));
    OK(divvy_events_fd(events, &fd, ERR));
    OK(divvy_calculator_start(calculator, TIMEOUT, ERR));
    OK(divvy_events_poll(events, TIMEOUT, &event, ERR));
    OK(divvy_event_free(event));
    OK(divvy_calculator_stop(calculator, TIMEOUT, ERR));
    CHECK(calls > 0);
    OK(divvy_subscription_free(subscription, TIMEOUT, ERR));
    OK(divvy_events_free(events));
    OK(divvy_calculator_free(calculator, ERR));
    OK(divvy_store_free(store));
}

int main(void) {
    divvy_config config = new_config();
    const char *wanted = getenv("DIVVY_TEST_CYCLES");
    int cycles = wanted ? atoi(wanted) : 1000, index, threads, descriptors, is_watched;
    long resident;
    for (index = 0; index < cycles / 5; index++) one_life(config);
    threads = running_threads();
    descriptors = entries("/proc/self/fd");
    resident = resident_kib();
    if (getenv("DIVVY_TEST_VERBOSE")) fprintf(stderr, "%ld KiB after the first lifecycles\n", resident);
    for (index = cycles / 5; index < cycles; index++) one_life(config);
    CHECK(running_threads() == threads);
    CHECK(entries("/proc/self/fd") == descriptors);
    if (getenv("DIVVY_TEST_VERBOSE")) fprintf(stderr, "%ld KiB after the last\n", resident_kib());
    /* Sanitizers keep freed memory for a while. */
    is_watched = getenv("DIVVY_TEST_SANITIZE") || getenv("DIVVY_TEST_WRAPPER");
    if (!is_watched && resident_kib() > resident + 1024)
        FAIL("memory grew from %ld to %ld KiB", resident, resident_kib());
    OK(divvy_config_free(config));
    return 0;
}
