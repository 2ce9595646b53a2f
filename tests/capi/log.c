/* Log lines go only to the host's callback; signals are delivered only to the host's threads. */
#include <signal.h>

#include "check.h"

static volatile int lines, destroyed, deadlocks, published;

/* The record of a publication has its numbers as fields. */
static void check_fields(divvy_log_record record) {
    size_t index, length = 0, count = divvy_log_field_count(record);
    int has_version = 0;
    for (index = 0; index < count; index++) {
        const char *name = divvy_log_field_name(record, index, &length);
        CHECK(length > 0 && strlen(name) == length);
        CHECK(strlen(divvy_log_field_value(record, index, &length)) == length);
        if (strcmp(name, "version") == 0) {
            has_version = atoi(divvy_log_field_value(record, index, NULL)) > 0;
            CHECK(divvy_log_field_is_number(record, index) == 1);
        }
    }
    CHECK(has_version && count >= 4);
    CHECK(strcmp(divvy_log_field_name(record, count, NULL), "") == 0);
    CHECK(strcmp(divvy_log_field_value(record, (size_t)-1, &length), "") == 0 && length == 0);
    CHECK(divvy_log_field_is_number(record, count) == 0);
    published++;
}

static void on_line(void *userdata, int32_t level, const char *target, const char *message,
                    size_t length, divvy_log_record record) {
    char why[256];
    CHECK(userdata == &lines);
    CHECK(level >= DIVVY_LOG_ERROR && level <= DIVVY_LOG_TRACE);
    CHECK(strncmp(target, "divvy", 5) == 0 && strlen(message) == length);
    if (divvy_log_set(0, NULL, NULL, NULL, why, sizeof why) == DIVVY_WOULD_DEADLOCK) deadlocks++;
    if (strncmp(message, "rebalance completed", 19) == 0) check_fields(record);
    lines++;
}

static void on_destroy(void *userdata) {
    CHECK(userdata == &lines);
    destroyed++;
}

/* Every thread named dv-... blocks every signal that can be blocked. */
static int check_masks(void) {
    DIR *directory = opendir("/proc/self/task");
    struct dirent *entry;
    int found = 0;
    CHECK(directory != NULL);
    while ((entry = readdir(directory)) != NULL) {
        char path[512], line[256], name[64] = "";
        unsigned long long blocked = 0;
        FILE *file;
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        file = fopen(path, "r");
        if (!file) continue;
        while (fgets(line, sizeof line, file)) {
            sscanf(line, "Name: %63s", name);
            sscanf(line, "SigBlk: %llx", &blocked);
        }
        fclose(file);
        if (strncmp(name, "dv-", 3) != 0) continue;
        found++;
        CHECK((blocked >> (SIGPIPE - 1) & 1) && (blocked >> (SIGTERM - 1) & 1));
        CHECK((blocked >> (SIGINT - 1) & 1) && (blocked >> (SIGPROF - 1) & 1));
    }
    closedir(directory);
    return found;
}

int main(void) {
    divvy_config config = new_config();
    divvy_store store = new_store(config);
    divvy_calculator calculator = {0};
    divvy_partitions list = new_partitions(4);
    struct sigaction before, after;
    fleet workers;
    int seen;
    CHECK(sigaction(SIGPIPE, NULL, &before) == 0);
    OK(divvy_log_set(DIVVY_LOG_TRACE, on_line, (void *)&lines, on_destroy, ERR));
    /* Causes a warning: the cooldown exceeds the windows. */
    OK(divvy_config_set(config, "cooldown", "1h", ERR));
    fleet_start(&workers, store, 2);
    OK(divvy_calculator_new(config, store, &calculator, ERR));
    OK(divvy_calculator_set_partitions(calculator, list, ERR));
    OK(divvy_calculator_start(calculator, TIMEOUT, ERR));
    WAIT_UNTIL(held(store, 0) == 2);
    /* A line that is logged right now may be half counted. */
    WAIT_UNTIL(lines > 0 && deadlocks == lines);
    WAIT_UNTIL(published > 0);
    CHECK(divvy_log_field_count((divvy_log_record){0}) == 0);
    CHECK(destroyed == 0);
    CHECK(check_masks() >= 5);
    CHECK(sigaction(SIGPIPE, NULL, &after) == 0);
    CHECK(before.sa_handler == after.sa_handler);

    OK(divvy_log_set(DIVVY_LOG_INFO, on_line, (void *)&lines, on_destroy, ERR)); /* replaces it */
    CHECK(destroyed == 1);
    OK(divvy_log_set(DIVVY_LOG_OFF, NULL, NULL, NULL, ERR));
    CHECK(destroyed == 2);
    seen = lines;
    OK(divvy_calculator_trigger_rebalance(calculator, TIMEOUT, NULL, ERR));
    OK(divvy_calculator_free(calculator, ERR));
    CHECK(lines == seen);
    OK(divvy_partitions_free(list));
    OK(divvy_config_free(config));
    fleet_stop(&workers);
    OK(divvy_store_free(store));
    return 0;
}
