/* Measures the overhead of the C ABI and prints it, without limits. See `make figures`. */

#include "check.h"

#define EVENTS 3000

static int64_t delays[1 << 16];
static volatile int count;

static void on_event(void *userdata, divvy_event event) {
    int64_t now = now_ns();
    (void)userdata;
    if (divvy_event_get_kind(event) == DIVVY_EVENT_CALCULATOR_STATE && count < 1 << 16)
        delays[count++] = now - (int64_t)divvy_event_time_ns(event);
}

static int by_size(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* CPU time of this thread only. */
static int64_t cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static long resident_kib(void) {
    long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%ld %ld", &total, &resident) == 2);
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

int main(void) {
    divvy_config config = new_config();
    divvy_store store;
    divvy_partitions list = new_partitions(16);
    divvy_calculator calculator = {0};
    divvy_subscription subscription = {0};
    divvy_events events = {0};
    divvy_event event = {0};
    volatile int64_t sum = 0;
    int64_t start;
    int index, worker;
    long before = resident_kib();
    int threads_before = running_threads();

    OK(divvy_config_set(config, "heartbeat_ttl", "1h", ERR));
    OK(divvy_config_set(config, "store", "memory", ERR));
    OK(divvy_store_open(config, 0, &store, ERR));
    OK(divvy_store_ensure(store, DIVVY_BUCKET_HEARTBEAT, 0, TIMEOUT, ERR));
    for (worker = 0; worker < 4; worker++) beat(store, worker);
    OK(divvy_calculator_new(config, store, &calculator, ERR));
    OK(divvy_calculator_set_partitions(calculator, list, ERR));
    OK(divvy_calculator_start(calculator, TIMEOUT, ERR));
    WAIT_UNTIL(held(store, 0) == 4);
    printf("calculator with the memory store: %d threads, %ld KiB resident added\n",
           running_threads() - threads_before, resident_kib() - before);

    OK(divvy_calculator_subscribe(calculator, DIVVY_FILTER_STATE, on_event, NULL, NULL, &subscription,
                                  ERR));
    nap_ms(50);
    count = 0;
    for (index = 0; index < EVENTS; index++)
        OK(divvy_calculator_trigger_rebalance(calculator, TIMEOUT, NULL, ERR));
    nap_ms(50);
    qsort(delays, (size_t)count, sizeof delays[0], by_size);
    printf("transition to C callback, %d events: p50 %.1f us, p99 %.1f us, max %.1f us\n", count,
           (double)delays[count / 2] / 1e3, (double)delays[count * 99 / 100] / 1e3,
           (double)delays[count - 1] / 1e3);

    start = cpu_ns();
    for (index = 0; index < 10000000; index++) sum += divvy_calculator_get_state(calculator);
    printf("state: %.1f ns a call\n", (double)(cpu_ns() - start) / 1e7);
    start = cpu_ns();
    for (index = 0; index < 10000000; index++) sum += divvy_version_number();
    printf("empty call: %.1f ns\n", (double)(cpu_ns() - start) / 1e7);

    OK(divvy_calculator_events(calculator, DIVVY_FILTER_STATE, &events, ERR));
    OK(divvy_events_poll(events, 0, &event, ERR));
    OK(divvy_event_free(event));
    start = cpu_ns();
    for (index = 0; index < 1000000; index++)
        sum += divvy_events_poll(events, 0, &event, NULL, 0);
    printf("poll, nothing there: %.1f ns\n", (double)(cpu_ns() - start) / 1e6);
    for (index = 0; index < EVENTS; index++)
        OK(divvy_calculator_trigger_rebalance(calculator, TIMEOUT, NULL, ERR));
    start = cpu_ns();
    for (index = 0; divvy_events_poll(events, 0, &event, NULL, 0) == DIVVY_OK; index++)
        OK(divvy_event_free(event));
    printf("poll and free, %d events there: %.1f ns an event\n", index,
           (double)(cpu_ns() - start) / index);
    OK(divvy_subscription_free(subscription, TIMEOUT, ERR));
    OK(divvy_events_free(events));
    OK(divvy_calculator_free(calculator, ERR));
    OK(divvy_partitions_free(list));
    OK(divvy_config_free(config));
    OK(divvy_store_free(store));
    return sum == 0;
}
