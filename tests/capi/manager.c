/* Managers: two workers join, share, hand over and leave; callback and poll deliver the same events. */
#include "check.h"

#define MOST 4096

static const char *const MANAGED =
    "{\"heartbeat_interval\":\"250ms\",\"worker_id_ttl\":\"3s\",\"election_timeout\":\"800ms\","
    "\"heartbeat_ttl\":\"1500ms\",\"emergency_grace_period\":\"300ms\",\"cooldown\":\"50ms\",\"initial_delay\":\"0s\"}";

static divvy_config managed(void) {
    divvy_config config = new_config();
    OK(divvy_config_merge_json(config, MANAGED, strlen(MANAGED), ERR));
    return config;
}

static divvy_manager new_manager(divvy_config config, divvy_store store) {
    divvy_manager manager = {0};
    divvy_partitions list = new_partitions(10);
    OK(divvy_manager_new(config, store, &manager, ERR));
    OK(divvy_manager_set_partitions(manager, list, ERR));
    OK(divvy_partitions_free(list));
    return manager;
}

static int64_t holds(divvy_manager manager) {
    divvy_assignment assignment = {0};
    int64_t count;
    OK(divvy_manager_assignment(manager, &assignment, ERR));
    count = divvy_assignment_count(assignment, DIVVY_LIST_OWNED);
    CHECK(divvy_assignment_count(assignment, DIVVY_LIST_ADDED) == 0);
    OK(divvy_assignment_free(assignment));
    return count;
}

static void check_text(divvy_status got, divvy_text text, const char *wanted) {
    CHECK(got == DIVVY_OK);
    if (strcmp(divvy_text_data(text, NULL), wanted) != 0)
        FAIL("%s, not %s", divvy_text_data(text, NULL), wanted);
    OK(divvy_text_free(text));
}

static void check_snapshot(divvy_manager manager) {
    divvy_assignment held = {0};
    divvy_text text = {0};
    size_t length = 0;
    const char *json;
    OK(divvy_manager_assignment(manager, &held, ERR));
    CHECK(divvy_assignment_version(held) > 0 && divvy_assignment_term(held) > 0);
    CHECK(divvy_assignment_lifecycle(held, &length)[0] != 0 && length > 0);
    CHECK(divvy_assignment_key_count(held, DIVVY_LIST_OWNED, 0) == 2);
    CHECK(divvy_assignment_key_count(held, DIVVY_LIST_OWNED, 10) == 0);
    CHECK(strcmp(divvy_assignment_key(held, DIVVY_LIST_OWNED, 0, 0, &length), "tool0000") == 0);
    CHECK(length == 8 && divvy_assignment_key(held, DIVVY_LIST_OWNED, 0, 2, NULL) == NULL);
    CHECK(divvy_assignment_weight(held, DIVVY_LIST_OWNED, 9) == 1);
    json = divvy_assignment_json(held, &length);
    CHECK(length == strlen(json) && strstr(json, "\"tool0009\"") != NULL);
    OK(divvy_assignment_free(held));
    EXPECT(DIVVY_BAD_HANDLE, divvy_assignment_free(held));
    CHECK(divvy_assignment_count(held, DIVVY_LIST_OWNED) == DIVVY_BAD_HANDLE);
    OK(divvy_manager_status_json(manager, &text, ERR));
    json = divvy_text_data(text, NULL);
    CHECK(strstr(json, "\"worker_id\":\"worker-0\"") != NULL);
    CHECK(strstr(json, "\"is_leader\":true") != NULL);
    CHECK(strstr(json, "\"calculator\":{") != NULL);
    OK(divvy_text_free(text));
}

/* Returns the value of a series without labels. */
static double series(divvy_manager manager, const char *name) {
    divvy_text page = {0};
    const char *at;
    char line[128];
    double value = -1;
    OK(divvy_manager_metrics(manager, &page, ERR));
    snprintf(line, sizeof line, "\n%s ", name);
    at = strstr(divvy_text_data(page, NULL), line);
    if (at) value = atof(at + strlen(line));
    else FAIL("no series %s", name);
    OK(divvy_text_free(page));
    return value;
}

/* The events of a subscriber. */
typedef struct record {
    char *lines[MOST];
    volatile int count, destroyed;
    int64_t version, held; /* computed from added and removed, at each event */
    pthread_mutex_t lock;
} record;

static void note(record *self, divvy_event event) {
    size_t length = 0;
    const char *json = divvy_event_json(event, &length);
    divvy_assignment change = {0};
    char why[256];
    pthread_mutex_lock(&self->lock);
    CHECK(self->count < MOST);
    self->lines[self->count] = (char *)malloc(length + 1);
    memcpy(self->lines[self->count++], json, length + 1);
    if (divvy_event_get_kind(event) == DIVVY_EVENT_ASSIGNMENT) {
        CHECK(divvy_event_assignment(event, &change, why, sizeof why) == DIVVY_OK);
        CHECK(divvy_event_version(event) == divvy_assignment_version(change));
        CHECK(divvy_event_version(event) >= self->version);
        self->version = divvy_event_version(event);
        self->held += divvy_assignment_count(change, DIVVY_LIST_ADDED);
        self->held -= divvy_assignment_count(change, DIVVY_LIST_REMOVED);
        CHECK(self->held == divvy_assignment_count(change, DIVVY_LIST_OWNED));
        CHECK(divvy_assignment_free(change) == DIVVY_OK);
    } else {
        CHECK(divvy_event_assignment(event, &change, why, sizeof why) == DIVVY_INVALID_ARGUMENT);
        CHECK(change.id == 0);
    }
    pthread_mutex_unlock(&self->lock);
}

static divvy_manager first;

static void on_event(void *userdata, divvy_event event) {
    char why[256];
    note((record *)userdata, event);
    CHECK(divvy_manager_stop(first, DIVVY_DEPARTURE_LEAVE, 100, why, sizeof why) ==
          DIVVY_WOULD_DEADLOCK);
    CHECK(divvy_manager_free(first, why, sizeof why) == DIVVY_WOULD_DEADLOCK);
}

static void on_destroy(void *userdata) { ((record *)userdata)->destroyed++; }

static void check_reported(record *called, divvy_events polled) {
    static const char *const KINDS[] = {"manager_state", "worker_id", "assignment", "leader",
                                        "published"};
    record read;
    int index;
    size_t kind;
    memset(&read, 0, sizeof read);
    pthread_mutex_init(&read.lock, NULL);
    for (;;) {
        divvy_event event = {0};
        divvy_status status = divvy_events_poll(polled, TIMEOUT, &event, ERR);
        if (status == DIVVY_CLOSED) break;
        CHECK(status == DIVVY_OK);
        note(&read, event);
        OK(divvy_event_free(event));
    }
    CHECK(called->count == read.count && called->held == 0);
    for (kind = 0; kind < sizeof KINDS / sizeof *KINDS; kind++) {
        char text[64];
        int is_reported = 0;
        snprintf(text, sizeof text, "\"kind\":\"%s\"", KINDS[kind]);
        for (index = 0; index < read.count; index++)
            is_reported = is_reported || strstr(read.lines[index], text) != NULL;
        if (!is_reported) FAIL("no event of kind %s", KINDS[kind]);
    }
    for (index = 0; index < read.count; index++) {
        CHECK(same_except_time(called->lines[index], read.lines[index]));
        if (index + 1 == read.count) CHECK(strcmp(called->lines[index], read.lines[index]) == 0);
        free(called->lines[index]);
        free(read.lines[index]);
    }
}

static void a_fleet_of_two(void) {
    divvy_config config = managed();
    divvy_store store = new_store(config);
    divvy_manager second;
    divvy_text text = {0};
    divvy_subscription subscription = {0};
    divvy_events polled = {0};
    int64_t version = 0, again = 0;
    double added, published;
    static record called;
    pthread_mutex_init(&called.lock, NULL);
    first = new_manager(config, store);
    second = new_manager(config, store);
    CHECK(divvy_manager_is_started(first) == 0 && divvy_manager_is_leader(first) == 0);
    CHECK(divvy_manager_get_state(first) == DIVVY_MANAGER_INIT && holds(first) == 0);
    EXPECT(DIVVY_NOT_FOUND, divvy_manager_worker_id(first, &text, ERR));
    EXPECT(DIVVY_NOT_FOUND, divvy_manager_leader(first, &text, ERR));
    EXPECT(DIVVY_NOT_LEADER, divvy_manager_trigger_rebalance(first, 100, NULL, ERR));
    OK(divvy_manager_subscribe(first, DIVVY_MANAGER_FILTER_WORKER_AND_CALCULATOR, on_event,
                               &called, on_destroy, &subscription, ERR));
    OK(divvy_manager_events(first, DIVVY_MANAGER_FILTER_WORKER_AND_CALCULATOR, &polled, ERR));

    OK(divvy_manager_start(first, TIMEOUT, ERR));
    EXPECT(DIVVY_ALREADY_STARTED, divvy_manager_start(first, TIMEOUT, ERR));
    check_text(divvy_manager_worker_id(first, &text, ERR), text, "worker-0");
    WAIT_UNTIL(holds(first) == 10);
    OK(divvy_manager_wait_state(first, DIVVY_MANAGER_STABLE, TIMEOUT, ERR));
    EXPECT(DIVVY_TIMED_OUT, divvy_manager_wait_state(first, DIVVY_MANAGER_SHUTDOWN, 1, ERR));
    CHECK(divvy_manager_is_started(first) == 1 && divvy_manager_is_leader(first) == 1);
    check_snapshot(first);
    OK(divvy_manager_trigger_rebalance(first, TIMEOUT, &version, ERR));
    OK(divvy_manager_refresh_partitions(first, TIMEOUT, &again, ERR));
    CHECK(version > 1 && again >= version);

    OK(divvy_manager_start(second, TIMEOUT, ERR));
    WAIT_UNTIL(holds(first) == 5 && holds(second) == 5);
    check_text(divvy_manager_worker_id(second, &text, ERR), text, "worker-1");
    WAIT_UNTIL(divvy_manager_leader(second, &text, ERR) == DIVVY_OK);
    check_text(DIVVY_OK, text, "worker-0");
    EXPECT(DIVVY_NOT_LEADER, divvy_manager_refresh_partitions(second, 100, NULL, ERR));
    CHECK(strstr(err, "worker-0") != NULL);
    CHECK(strcmp(divvy_error_operation(ERR, NULL), "refresh_partitions") == 0);
    CHECK(divvy_error_key(ERR, NULL)[0] == 0 && divvy_error_attempts(ERR) == 1);
    /* Each handle has its own metrics. */
    CHECK(series(first, "divvy_manager_is_leader") == 1);
    CHECK(series(second, "divvy_manager_is_leader") == 0);
    CHECK(series(first, "divvy_worker_partitions_added_total") == 10);
    CHECK(series(second, "divvy_worker_partitions_added_total") == 5);
    CHECK(series(first, "divvy_plan_partitions") == 10 && series(second, "divvy_plan_partitions") == 0);
    added = series(first, "divvy_worker_partitions_added_total");
    published = series(first, "divvy_partitions_moved_total");

    OK(divvy_manager_stop(first, DIVVY_DEPARTURE_LEAVE, TIMEOUT, ERR));
    OK(divvy_manager_stop(first, DIVVY_DEPARTURE_LEAVE, TIMEOUT, ERR));
    CHECK(called.destroyed == 1); /* before stop returned */
    CHECK(divvy_manager_get_state(first) == DIVVY_MANAGER_SHUTDOWN && holds(first) == 0);
    WAIT_UNTIL(holds(second) == 10 && divvy_manager_is_leader(second) == 1);
    check_reported(&called, polled);
    OK(divvy_events_free(polled));
    OK(divvy_subscription_free(subscription, TIMEOUT, ERR));

    OK(divvy_manager_start(first, TIMEOUT, ERR)); /* a second lifecycle, under the free id */
    check_text(divvy_manager_worker_id(first, &text, ERR), text, "worker-0");
    WAIT_UNTIL(holds(first) == 5 && holds(second) == 5);
    /* Counters continue over stops, starts and leaderships. */
    CHECK(series(first, "divvy_worker_partitions_added_total") == added + 5);
    CHECK(series(first, "divvy_partitions_moved_total") >= published);
    OK(divvy_manager_stop(first, DIVVY_DEPARTURE_RESTART, TIMEOUT, ERR));
    OK(divvy_manager_free(first, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_manager_free(first, ERR));
    OK(divvy_manager_free(second, ERR)); /* also stops it */
    OK(divvy_config_free(config));
    OK(divvy_store_free(store));
}

static volatile int campaigns, resigned, dropped, is_elected;

static int32_t campaign(void *userdata, const char *worker, int64_t timeout_ms, int64_t *lease_ms) {
    CHECK(userdata == &campaigns && strcmp(worker, "tool-3") == 0 && timeout_ms > 0);
    CHECK(*lease_ms == 0);
    if (__sync_fetch_and_add(&campaigns, 1) == 0) return DIVVY_UNAVAILABLE; /* retried */
    if (is_elected) *lease_ms = 2000;
    return DIVVY_OK;
}

static int32_t resign(void *userdata, const char *worker, int64_t timeout_ms) {
    CHECK(userdata == &campaigns && strcmp(worker, "tool-3") == 0 && timeout_ms > 0);
    resigned++;
    return DIVVY_OK;
}

static void on_drop(void *userdata) {
    CHECK(userdata == &campaigns);
    dropped++;
}

static int32_t source(void *userdata, divvy_partitions list, int64_t timeout_ms) {
    const char *keys[1] = {"only"};
    char why[256];
    (void)userdata, (void)timeout_ms;
    return divvy_partitions_add(list, keys, 1, 7, why, sizeof why);
}

static void an_election_of_the_host(void) {
    divvy_config config = managed();
    divvy_store store = new_store(config);
    divvy_manager manager = {0};
    divvy_partitions list = new_partitions(1);
    OK(divvy_config_set(config, "worker_id_prefix", "tool", ERR));
    OK(divvy_config_set(config, "worker_id_min", "3", ERR));
    /* The bucket may contain the longer list of the previous fleet. */
    OK(divvy_config_set(config, "max_list_shrink", "1", ERR));
    OK(divvy_config_set_source(config, source, NULL, NULL, ERR));
    OK(divvy_config_set_election(config, campaign, resign, (void *)&campaigns, on_drop, ERR));
    OK(divvy_manager_new(config, store, &manager, ERR));
    OK(divvy_config_free(config));
    CHECK(dropped == 0); /* the manager still uses it */
    EXPECT(DIVVY_INVALID_ARGUMENT, divvy_manager_set_partitions(manager, list, ERR));
    OK(divvy_partitions_free(list));
    OK(divvy_manager_start(manager, TIMEOUT, ERR));
    WAIT_UNTIL(campaigns > 2);
    CHECK(divvy_manager_is_leader(manager) == 0);
    is_elected = 1;
    WAIT_UNTIL(holds(manager) == 1);
    CHECK(divvy_manager_is_leader(manager) == 1 && resigned == 0);
    OK(divvy_manager_stop(manager, DIVVY_DEPARTURE_LEAVE, TIMEOUT, ERR));
    CHECK(resigned == 1);
    OK(divvy_manager_free(manager, ERR));
    CHECK(dropped == 1);
    OK(divvy_store_free(store));
}

int main(void) {
    CHECK(strcmp(divvy_manager_state_name(DIVVY_MANAGER_CLAIMING_ID), "ClaimingID") == 0);
    CHECK(strcmp(divvy_manager_state_name(99), "unknown") == 0);
    CHECK(strcmp(divvy_alert_level_name(DIVVY_ALERT_WARNING), "warning") == 0);
    a_fleet_of_two();
    an_election_of_the_host();
    return 0;
}
