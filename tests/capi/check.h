/* Shared by the C tests: checks that report their location, a store, workers with heartbeats. */
#ifndef DIVVY_TEST_CHECK_H
#define DIVVY_TEST_CHECK_H

#include <dirent.h>
#include <divvy.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__GNUC__)
#define UNUSED __attribute__((unused))
#else
#define UNUSED
#endif

static char err[512] UNUSED;

#define FAIL(...)                                                   \
    do {                                                            \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);             \
        fprintf(stderr, __VA_ARGS__);                               \
        fprintf(stderr, "\n");                                      \
        abort();                                                    \
    } while (0)

#define CHECK(condition)                                            \
    do {                                                            \
        if (!(condition)) FAIL("not so: %s", #condition);           \
    } while (0)

/* Checks the status of a call. Prints err if it differs. */
#define EXPECT(status, call)                                        \
    do {                                                            \
        int32_t got_;                                               \
        err[0] = 0;                                                 \
        got_ = (call);                                              \
        if (got_ != (status))                                       \
            FAIL("%s\n  returned %s (%s), not %s", #call,           \
                 divvy_status_name(got_), err, divvy_status_name(status)); \
    } while (0)

#define OK(call) EXPECT(DIVVY_OK, call)
#define ERR err, sizeof err

/* Generous: only a hang takes this long. */
#define TIMEOUT 20000

static void nap_ms(long ms) UNUSED;
static void nap_ms(long ms) {
    struct timespec pause;
    pause.tv_sec = ms / 1000;
    pause.tv_nsec = ms % 1000 * 1000000;
    nanosleep(&pause, NULL);
}

/* Counts the running threads. The kernel wakes the joining thread a moment before it removes the
 * ended one from the list. */
static int running_threads(void) UNUSED;
static int running_threads(void) {
    DIR *directory = opendir("/proc/self/task");
    struct dirent *entry;
    int running = 0;
    CHECK(directory != NULL);
    while ((entry = readdir(directory)) != NULL) {
        char path[300], line[512] = "", *rest;
        unsigned flags;
        FILE *file;
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", entry->d_name);
        if (entry->d_name[0] == '.' || !(file = fopen(path, "r"))) continue;
        rest = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
        fclose(file);
        /* The seventh after the name; the bit is PF_EXITING. */
        if (rest && sscanf(rest, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && !(flags & 4)) running++;
    }
    closedir(directory);
    return running;
}

static int64_t now_ns(void) UNUSED;
static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#define WAIT_UNTIL(condition)                                       \
    do {                                                            \
        int64_t limit_ = now_ns() + (int64_t)TIMEOUT * 1000000;    \
        while (!(condition)) {                                      \
            if (now_ns() > limit_) FAIL("timed out: %s", #condition); \
            nap_ms(2);                                              \
        }                                                           \
    } while (0)

/* Short windows, for tests. */
static const char *const FAST UNUSED =
    "{\"heartbeat_ttl\":\"1500ms\",\"emergency_grace_period\":\"100ms\",\"cooldown\":\"50ms\","
    "\"cold_start_window\":\"150ms\",\"planned_scale_window\":\"100ms\",\"leave_window\":\"20ms\","
    "\"join_coalescing\":\"5ms\",\"recovery_grace\":\"200ms\"}";

/* Programs on the same server use different buckets. */
static void name_bucket(divvy_config config, const char *setting) UNUSED;
static void name_bucket(divvy_config config, const char *setting) {
    const char *program = getenv("DIVVY_TEST_BUCKETS");
    char name[128];
    snprintf(name, sizeof name, "%s-%s", program ? program : "test", setting);
    OK(divvy_config_set(config, setting, name, ERR));
}

static divvy_config new_config(void) UNUSED;
static divvy_config new_config(void) {
    divvy_config config = {0};
    const char *url = getenv("DIVVY_TEST_NATS_URL");
    OK(divvy_config_new(&config, ERR));
    OK(divvy_config_merge_json(config, FAST, strlen(FAST), ERR));
    if (url) {
        OK(divvy_config_set(config, "nats_url", url, ERR));
        OK(divvy_config_set(config, "nats_storage", "memory", ERR));
        name_bucket(config, "stable_id_bucket");
        name_bucket(config, "election_bucket");
        name_bucket(config, "heartbeat_bucket");
        name_bucket(config, "assignment_bucket");
    }
    return config;
}

/* Opens a store on the server if there is one, or in memory. */
static divvy_store new_store(divvy_config config) UNUSED;
static divvy_store new_store(divvy_config config) {
    divvy_store store = {0};
    if (!getenv("DIVVY_TEST_NATS_URL")) OK(divvy_config_set(config, "store", "memory", ERR));
    OK(divvy_store_open(config, TIMEOUT, &store, ERR));
    OK(divvy_store_ensure(store, DIVVY_BUCKET_HEARTBEAT, 1500, TIMEOUT, ERR));
    return store;
}

/* Workers that send heartbeats until they are stopped. */
typedef struct fleet {
    divvy_store store;
    int count;
    volatile int is_over;
    pthread_t thread;
    pthread_mutex_t lock;
} fleet;

static void beat(divvy_store store, int worker) UNUSED;
static void beat(divvy_store store, int worker) {
    char key[64];
    snprintf(key, sizeof key, "heartbeat.worker-%d", worker);
    OK(divvy_store_put(store, DIVVY_BUCKET_HEARTBEAT, key, "alive", 5, TIMEOUT, ERR));
}

static void *fleet_beats(void *argument) {
    fleet *self = (fleet *)argument;
    for (;;) {
        int count, is_over, worker;
        pthread_mutex_lock(&self->lock);
        count = self->count;
        is_over = self->is_over;
        pthread_mutex_unlock(&self->lock);
        if (is_over) return NULL;
        for (worker = 0; worker < count; worker++) {
            char key[64], why[256];
            snprintf(key, sizeof key, "heartbeat.worker-%d", worker);
            divvy_store_put(self->store, DIVVY_BUCKET_HEARTBEAT, key, "alive", 5, 1000, why,
                            sizeof why);
        }
        nap_ms(200);
    }
}

static void fleet_start(fleet *self, divvy_store store, int count) UNUSED;
static void fleet_start(fleet *self, divvy_store store, int count) {
    int worker;
    memset(self, 0, sizeof *self);
    self->store = store;
    self->count = count;
    pthread_mutex_init(&self->lock, NULL);
    for (worker = 0; worker < count; worker++) beat(store, worker);
    CHECK(pthread_create(&self->thread, NULL, fleet_beats, self) == 0);
}

static void fleet_resize(fleet *self, int count) UNUSED;
static void fleet_resize(fleet *self, int count) {
    pthread_mutex_lock(&self->lock);
    self->count = count;
    pthread_mutex_unlock(&self->lock);
}

static void fleet_stop(fleet *self) UNUSED;
static void fleet_stop(fleet *self) {
    pthread_mutex_lock(&self->lock);
    self->is_over = 1;
    pthread_mutex_unlock(&self->lock);
    pthread_join(self->thread, NULL);
    pthread_mutex_destroy(&self->lock);
}

/* Returns the number of partitions in the stored assignment of a worker, or -1 without one. */
static int held(divvy_store store, int worker) UNUSED;
static int held(divvy_store store, int worker) {
    char key[64], why[256];
    divvy_text text = {0};
    const char *at;
    int count = 0;
    divvy_status status;
    snprintf(key, sizeof key, "assignment.worker-%d", worker);
    status = divvy_store_get(store, DIVVY_BUCKET_ASSIGNMENT, key, TIMEOUT, &text, why, sizeof why);
    if (status == DIVVY_NOT_FOUND || status == DIVVY_UNAVAILABLE) return -1;
    CHECK(status == DIVVY_OK);
    for (at = divvy_text_data(text, NULL); (at = strstr(at, "\"keys\"")) != NULL; at++) count++;
    CHECK(divvy_text_free(text) == DIVVY_OK);
    return count;
}

static divvy_partitions new_partitions(int count) UNUSED;
static divvy_partitions new_partitions(int count) {
    divvy_partitions list = {0};
    int index;
    OK(divvy_partitions_new(&list, ERR));
    for (index = 0; index < count; index++) {
        char first[32];
        const char *keys[2];
        snprintf(first, sizeof first, "tool%04d", index);
        keys[0] = first;
        keys[1] = "chamber1";
        OK(divvy_partitions_add(list, keys, 2, 1, ERR));
    }
    CHECK(divvy_partitions_count(list) == count);
    return list;
}

/* Whether two events have the same JSON. The current state that a subscriber receives first has the
   time of the subscription: that of another subscriber differs in it. */
static int same_except_time(const char *one, const char *other) UNUSED;
static int same_except_time(const char *one, const char *other) {
    const char *one_time = strstr(one, "\"time\":\""), *other_time = strstr(other, "\"time\":\"");
    const char *one_end, *other_end;
    if (one_time == NULL || other_time == NULL) return 0;
    one_end = strchr(one_time + strlen("\"time\":\""), '"');
    other_end = strchr(other_time + strlen("\"time\":\""), '"');
    return one_time - one == other_time - other && strncmp(one, other, (size_t)(one_time - one)) == 0 &&
           strcmp(one_end, other_end) == 0;
}

#endif
