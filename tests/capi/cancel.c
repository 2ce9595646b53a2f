/* Every call that waits ends when it is cancelled, and leaves nothing of itself. */
#include "check.h"

static const char *const MANAGED =
    "{\"heartbeat_interval\":\"250ms\",\"worker_id_ttl\":\"3s\",\"election_timeout\":\"800ms\","
    "\"heartbeat_ttl\":\"1500ms\",\"emergency_grace_period\":\"300ms\",\"cooldown\":\"50ms\"}";

/* A source that hangs while it is told to. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int is_hanging, inside;

static int32_t source(void *userdata, divvy_partitions list, int64_t timeout_ms) {
    const char *keys[1] = {"only"};
    char why[256];
    (void)userdata, (void)timeout_ms;
    pthread_mutex_lock(&lock);
    inside++;
    pthread_cond_broadcast(&changed);
    while (is_hanging) pthread_cond_wait(&changed, &lock);
    inside--;
    pthread_mutex_unlock(&lock);
    return divvy_partitions_add(list, keys, 1, 7, why, sizeof why);
}

static void hang(int whether) {
    pthread_mutex_lock(&lock);
    is_hanging = whether;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void wait_inside(void) {
    pthread_mutex_lock(&lock);
    while (inside == 0) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

/* A call on a thread of its own. */
typedef struct call {
    divvy_cancel cancel;
    divvy_calculator calculator;
    divvy_manager manager;
    int32_t (*make)(struct call *self);
    char why[512];
    int32_t status;
} call;

static void *run(void *argument) {
    call *self = (call *)argument;
    const divvy_cancel none = {0};
    CHECK(divvy_cancel_use(self->cancel, NULL, 0) == DIVVY_OK);
    self->status = self->make(self);
    CHECK(divvy_cancel_use(none, NULL, 0) == DIVVY_OK);
    return NULL;
}

#define WHY self->why, sizeof self->why

static int32_t start(call *self) {
    return divvy_calculator_start(self->calculator, DIVVY_TIMEOUT_MAX_MS, WHY);
}
static int32_t trigger(call *self) {
    return divvy_calculator_trigger_rebalance(self->calculator, DIVVY_TIMEOUT_MAX_MS, NULL, WHY);
}
static int32_t refresh(call *self) {
    return divvy_calculator_refresh(self->calculator, DIVVY_TIMEOUT_MAX_MS, NULL, WHY);
}
static int32_t stop(call *self) {
    return divvy_calculator_stop(self->calculator, DIVVY_TIMEOUT_MAX_MS, WHY);
}
static int32_t wait_state(call *self) {
    return divvy_manager_wait_state(self->manager, DIVVY_WORKER_DEGRADED, DIVVY_TIMEOUT_MAX_MS, WHY);
}
static int32_t join_fleet(call *self) {
    return divvy_manager_start(self->manager, DIVVY_TIMEOUT_MAX_MS, WHY);
}

/* The thread is joined: it would take for ever, were the call not ended. */
static void cancelled(call *self, int32_t (*make)(call *), int is_source_awaited) {
    pthread_t thread;
    OK(divvy_cancel_new(&self->cancel, ERR));
    self->make = make;
    CHECK(pthread_create(&thread, NULL, run, self) == 0);
    if (is_source_awaited) wait_inside();
    OK(divvy_cancel_fire(self->cancel, ERR));
    OK(divvy_cancel_fire(self->cancel, ERR));
    CHECK(pthread_join(thread, NULL) == 0);
    if (self->status != DIVVY_CANCELLED)
        FAIL("%s: %s", divvy_status_name(self->status), self->why);
    CHECK(divvy_error_attempts(self->why, sizeof self->why) == 1);
    OK(divvy_cancel_free(self->cancel));
    EXPECT(DIVVY_BAD_HANDLE, divvy_cancel_free(self->cancel));
    EXPECT(DIVVY_BAD_HANDLE, divvy_cancel_fire(self->cancel, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_cancel_use(self->cancel, ERR));
}

static void calls_of_a_calculator(void) {
    divvy_config config = new_config();
    divvy_store store = new_store(config);
    fleet workers;
    call self;
    memset(&self, 0, sizeof self);
    fleet_start(&workers, store, 2);
    OK(divvy_config_set_source(config, source, NULL, NULL, ERR));
    OK(divvy_calculator_new(config, store, &self.calculator, ERR));

    hang(1);
    cancelled(&self, start, 1);
    CHECK(strcmp(divvy_error_operation(self.why, sizeof self.why, NULL), "start") == 0);
    CHECK(divvy_calculator_is_started(self.calculator) == 0);
    hang(0);
    OK(divvy_calculator_stop(self.calculator, PATIENCE, ERR));

    OK(divvy_calculator_start(self.calculator, PATIENCE, ERR));
    OK(divvy_calculator_trigger_rebalance(self.calculator, PATIENCE, NULL, ERR));
    hang(1);
    cancelled(&self, trigger, 1);
    CHECK(strstr(self.why, "stays pending") != NULL);
    cancelled(&self, refresh, 1);
    cancelled(&self, stop, 1);
    CHECK(strstr(self.why, "dv-publish") != NULL);
    CHECK(divvy_calculator_is_started(self.calculator) == 0);
    hang(0);
    OK(divvy_calculator_stop(self.calculator, PATIENCE, ERR));
    OK(divvy_calculator_free(self.calculator, ERR));
    fleet_stop(&workers);
    OK(divvy_config_free(config));
    OK(divvy_store_free(store));
}

static void calls_of_a_manager(void) {
    divvy_config config = new_config();
    divvy_store store;
    divvy_manager first = {0};
    divvy_text text = {0};
    const divvy_cancel none = {0};
    int32_t status;
    call self;
    memset(&self, 0, sizeof self);
    OK(divvy_config_merge_json(config, MANAGED, strlen(MANAGED), ERR));
    OK(divvy_config_set(config, "worker_id_max", "0", ERR)); /* one id for two */
    store = new_store(config);
    OK(divvy_manager_new(config, store, &first, ERR));
    OK(divvy_manager_new(config, store, &self.manager, ERR));
    OK(divvy_manager_start(first, PATIENCE, ERR));
    cancelled(&self, join_fleet, 0);
    CHECK(divvy_manager_is_started(self.manager) == 0);
    OK(divvy_manager_free(self.manager, ERR));
    self.manager = first;
    cancelled(&self, wait_state, 0);

    /* A stop that nobody waits for: the worker leaves by itself all the same. */
    OK(divvy_cancel_new(&self.cancel, ERR));
    OK(divvy_cancel_fire(self.cancel, ERR));
    OK(divvy_cancel_use(self.cancel, ERR));
    status = divvy_manager_stop(first, DIVVY_DEPARTURE_LEAVE, PATIENCE, ERR);
    CHECK(status == DIVVY_CANCELLED || status == DIVVY_OK); /* gone at once */
    OK(divvy_cancel_use(none, ERR));
    OK(divvy_cancel_free(self.cancel));
    CHECK(divvy_manager_is_started(first) == 0);
    WAIT_UNTIL(divvy_store_get(store, DIVVY_BUCKET_STABLE_ID, "worker-0", PATIENCE, &text, ERR) ==
               DIVVY_NOT_FOUND);
    OK(divvy_manager_stop(first, DIVVY_DEPARTURE_LEAVE, PATIENCE, ERR));
    OK(divvy_manager_free(first, ERR));
    OK(divvy_config_free(config));
    OK(divvy_store_free(store));
}

/* One that is freed was not fired: a wait goes on to its time-out. */
static void freed_while_it_is_used(void) {
    divvy_config config = new_config();
    divvy_store store = new_store(config);
    divvy_manager manager = {0};
    divvy_cancel cancel = {0};
    const divvy_cancel none = {0};
    OK(divvy_config_merge_json(config, MANAGED, strlen(MANAGED), ERR));
    OK(divvy_manager_new(config, store, &manager, ERR));
    OK(divvy_cancel_new(&cancel, ERR));
    OK(divvy_cancel_use(cancel, ERR));
    OK(divvy_cancel_free(cancel));
    EXPECT(DIVVY_TIMED_OUT, divvy_manager_wait_state(manager, DIVVY_WORKER_STABLE, 1, ERR));
    OK(divvy_cancel_use(none, ERR));
    OK(divvy_manager_free(manager, ERR));
    OK(divvy_config_free(config));
    OK(divvy_store_free(store));
}

int main(void) {
    divvy_cancel unused = {0};
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_cancel_new(NULL, ERR));
    EXPECT(DIVVY_NULL_ARGUMENT, divvy_cancel_fire(unused, ERR));
    OK(divvy_cancel_free(unused));
    OK(divvy_cancel_use(unused, ERR));
    calls_of_a_calculator();
    calls_of_a_manager();
    freed_while_it_is_used();
    return 0;
}
