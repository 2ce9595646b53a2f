/* Every blocking call ends when it is cancelled, and leaves nothing behind. */
#include "check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

static const char *const MANAGED =
    "{\"heartbeat_interval\":\"250ms\",\"worker_id_ttl\":\"3s\",\"election_timeout\":\"800ms\","
    "\"heartbeat_ttl\":\"1500ms\",\"emergency_grace_period\":\"300ms\",\"cooldown\":\"50ms\",\"initial_delay\":\"0s\"}";

/* A source that blocks on request. */
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

/* A server that sends INFO and answers PING only; a deaf one only accepts connections. */
typedef struct {
    int listener, is_deaf;
    char url[64];
} mute;

static int heard; /* connections of a deaf server, requests of the other; under the lock */

static void hear(void) {
    pthread_mutex_lock(&lock);
    heard++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void *serve(void *argument) {
    static const char info[] =
        "INFO {\"server_id\":\"mute\",\"host\":\"::\",\"port\":1,\"go\":\"\",\"client_id\":1,"
        "\"version\":\"2.11.0\",\"proto\":1,\"headers\":true,"
        "\"max_payload\":1048576,\"jetstream\":true}\r\n";
    FILE *stream = fdopen((int)(intptr_t)argument, "r");
    char line[4096];
    int is_there;
    CHECK(stream != NULL);
    is_there = send(fileno(stream), info, sizeof info - 1, MSG_NOSIGNAL) > 0;
    while (is_there && fgets(line, sizeof line, stream)) {
        if (strcmp(line, "PING\r\n") == 0)
            is_there = send(fileno(stream), "PONG\r\n", 6, MSG_NOSIGNAL) > 0;
        if (strncmp(line, "PUB ", 4) == 0 || strncmp(line, "HPUB ", 5) == 0) hear();
    }
    fclose(stream);
    return NULL;
}

static void *accept_all(void *argument) {
    const mute *self = (const mute *)argument;
    pthread_t thread;
    int client;
    while ((client = accept(self->listener, NULL, NULL)) >= 0) {
        if (self->is_deaf) {
            hear(); /* and keep it open */
        } else {
            CHECK(pthread_create(&thread, NULL, serve, (void *)(intptr_t)client) == 0);
            CHECK(pthread_detach(thread) == 0);
        }
    }
    return NULL;
}

static void start_mute(mute *self, int is_deaf) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    pthread_t thread;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    self->is_deaf = is_deaf;
    self->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(self->listener >= 0);
    CHECK(bind(self->listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(self->listener, 16) == 0);
    CHECK(getsockname(self->listener, (struct sockaddr *)&address, &length) == 0);
    snprintf(self->url, sizeof self->url, "nats://127.0.0.1:%d", (int)ntohs(address.sin_port));
    CHECK(pthread_create(&thread, NULL, accept_all, self) == 0);
    CHECK(pthread_detach(thread) == 0);
}

/* A call on its own thread. */
typedef struct call {
    divvy_config config;
    divvy_store store;
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
    return divvy_manager_wait_state(self->manager, DIVVY_MANAGER_DEGRADED, DIVVY_TIMEOUT_MAX_MS, WHY);
}
static int32_t join_fleet(call *self) {
    return divvy_manager_start(self->manager, DIVVY_TIMEOUT_MAX_MS, WHY);
}

static int32_t connect_nats(call *self) {
    return divvy_store_open(self->config, DIVVY_TIMEOUT_MAX_MS, &self->store, WHY);
}
static int32_t ensure(call *self) {
    return divvy_store_ensure(self->store, DIVVY_BUCKET_ASSIGNMENT, 0, DIVVY_TIMEOUT_MAX_MS, WHY);
}
static int32_t put(call *self) {
    return divvy_store_put(self->store, DIVVY_BUCKET_ASSIGNMENT, "k", "v", 1, DIVVY_TIMEOUT_MAX_MS, WHY);
}
static int32_t delete_key(call *self) {
    return divvy_store_delete(self->store, DIVVY_BUCKET_ASSIGNMENT, "k", DIVVY_TIMEOUT_MAX_MS, WHY);
}
static int32_t get(call *self) {
    divvy_text text = {0};
    return divvy_store_get(self->store, DIVVY_BUCKET_ASSIGNMENT, "k", DIVVY_TIMEOUT_MAX_MS, &text, WHY);
}

/* Joining the thread would block forever if the call did not end. */
static void cancelled(call *self, int32_t (*make)(call *), void (*await)(void)) {
    pthread_t thread;
    OK(divvy_cancel_new(&self->cancel, ERR));
    self->make = make;
    CHECK(pthread_create(&thread, NULL, run, self) == 0);
    if (await) await();
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
    cancelled(&self, start, wait_inside);
    CHECK(strcmp(divvy_error_operation(self.why, sizeof self.why, NULL), "start") == 0);
    CHECK(divvy_calculator_is_started(self.calculator) == 0);
    hang(0);
    OK(divvy_calculator_stop(self.calculator, TIMEOUT, ERR));

    OK(divvy_calculator_start(self.calculator, TIMEOUT, ERR));
    OK(divvy_calculator_trigger_rebalance(self.calculator, TIMEOUT, NULL, ERR));
    hang(1);
    cancelled(&self, trigger, wait_inside);
    CHECK(strstr(self.why, "stays pending") != NULL);
    cancelled(&self, refresh, wait_inside);
    cancelled(&self, stop, wait_inside);
    CHECK(strstr(self.why, "dv-source") != NULL);
    CHECK(divvy_calculator_is_started(self.calculator) == 0);
    hang(0);
    OK(divvy_calculator_stop(self.calculator, TIMEOUT, ERR));
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
    OK(divvy_config_set(config, "worker_id_max", "0", ERR)); /* one id for two workers */
    store = new_store(config);
    OK(divvy_manager_new(config, store, &first, ERR));
    OK(divvy_manager_new(config, store, &self.manager, ERR));
    OK(divvy_manager_start(first, TIMEOUT, ERR));
    cancelled(&self, join_fleet, NULL);
    CHECK(divvy_manager_is_started(self.manager) == 0);
    OK(divvy_manager_free(self.manager, ERR));
    self.manager = first;
    cancelled(&self, wait_state, NULL);

    /* A cancelled stop: the worker still leaves in the background. */
    OK(divvy_cancel_new(&self.cancel, ERR));
    OK(divvy_cancel_fire(self.cancel, ERR));
    OK(divvy_cancel_use(self.cancel, ERR));
    status = divvy_manager_stop(first, DIVVY_DEPARTURE_LEAVE, TIMEOUT, ERR);
    CHECK(status == DIVVY_CANCELLED || status == DIVVY_OK); /* it left immediately */
    OK(divvy_cancel_use(none, ERR));
    OK(divvy_cancel_free(self.cancel));
    CHECK(divvy_manager_is_started(first) == 0);
    WAIT_UNTIL(divvy_store_get(store, DIVVY_BUCKET_STABLE_ID, "worker-0", TIMEOUT, &text, ERR) ==
               DIVVY_NOT_FOUND);
    OK(divvy_manager_stop(first, DIVVY_DEPARTURE_LEAVE, TIMEOUT, ERR));
    OK(divvy_manager_free(first, ERR));
    OK(divvy_config_free(config));
    OK(divvy_store_free(store));
}

/* Waits until the server has received another connection or request. */
static void wait_heard(void) {
    static int before;
    pthread_mutex_lock(&lock);
    while (heard == before) pthread_cond_wait(&changed, &lock);
    before = heard;
    pthread_mutex_unlock(&lock);
}

static void calls_of_a_store(void) {
    static mute deaf, server; /* the threads outlive this function */
    const divvy_cancel none = {0};
    call self;
    memset(&self, 0, sizeof self);
    start_mute(&deaf, 1);
    start_mute(&server, 0);
    OK(divvy_config_new(&self.config, ERR));
    OK(divvy_config_set(self.config, "nats_url", deaf.url, ERR));
    cancelled(&self, connect_nats, wait_heard);
    CHECK(self.store.id == 0);
    OK(divvy_config_set(self.config, "nats_url", server.url, ERR));
    OK(divvy_store_open(self.config, TIMEOUT, &self.store, ERR));
    /* The writes are sent only once, so the request is theirs. */
    cancelled(&self, put, wait_heard);
    CHECK(strstr(self.why, "may have been written") != NULL);
    cancelled(&self, delete_key, wait_heard);
    CHECK(strstr(self.why, "may have been written") != NULL);
    cancelled(&self, ensure, wait_heard);
    cancelled(&self, get, wait_heard);
    CHECK(strcmp(divvy_error_operation(self.why, sizeof self.why, NULL), "read") == 0);

    /* Fired before the call: nothing is requested. */
    OK(divvy_cancel_new(&self.cancel, ERR));
    OK(divvy_cancel_fire(self.cancel, ERR));
    OK(divvy_cancel_use(self.cancel, ERR));
    CHECK(put(&self) == DIVVY_CANCELLED && strstr(self.why, "the request was not sent") != NULL);
    CHECK(get(&self) == DIVVY_CANCELLED && ensure(&self) == DIVVY_CANCELLED);
    OK(divvy_store_free(self.store)); /* the store stops nevertheless */
    OK(divvy_cancel_use(none, ERR));
    OK(divvy_cancel_free(self.cancel));
    OK(divvy_config_free(self.config));
}

/* Freeing a cancel handle does not fire it: the wait continues until its timeout. */
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
    EXPECT(DIVVY_TIMED_OUT, divvy_manager_wait_state(manager, DIVVY_MANAGER_STABLE, 1, ERR));
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
    calls_of_a_store();
    freed_while_it_is_used();
    return 0;
}
