/* A server for images that have nothing else: linked statically, it needs no file beside itself.

   server [serve | elsewhere PORT | exit CODE | silent]   listens on $PORT, on another port, ends at once, or waits. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

static void answer(int to, const char *format, ...) {
    static __thread char body[1 << 16];
    va_list values;
    va_start(values, format);
    int size = vsnprintf(body, sizeof body, format, values);
    va_end(values);
    dprintf(to, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", size, body);
}

static const char *writing(const char *path) {
    int made = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (made < 0) return strerror(errno);
    close(made);
    return "written";
}

static void variables(int to) {
    char all[1 << 15] = "", folder[4096];
    for (char **each = environ; *each; each++) {
        if (strlen(all) + strlen(*each) + 2 > sizeof all) break;
        strcat(strcat(all, *each), "\n");
    }
    answer(to, "%sfolder: %s\n", all, getcwd(folder, sizeof folder));
}

static void power(int to) {
    char line[4096], all[8192] = "";
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, status))
        if (!strncmp(line, "Cap", 3) || !strncmp(line, "NoNewPrivs", 10) || !strncmp(line, "Seccomp:", 8)) strcat(all, line);
    fclose(status);
    int root = !syscall(SYS_setuid, 0), space = !unshare(CLONE_NEWUSER); /* of this thread alone */
    answer(to, "%suid: %d\nbecame root: %d\nmade a namespace: %d\n", all, getuid(), root, space);
}

static void streamed(int to) {
    dprintf(to, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n");
    while (access("/tmp/go", F_OK)) usleep(1000); /* until a second request says so */
    dprintf(to, "3\r\ntwo\r\n0\r\n\r\n");
}

static void upgraded(int to) {
    char said[256];
    dprintf(to, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    for (ssize_t size; (size = read(to, said, sizeof said)) > 0;) write(to, said, size);
}

static void serve(int to, const char *path) {
    if (!strcmp(path, "/variables")) variables(to);
    else if (!strcmp(path, "/power")) power(to);
    else if (!strcmp(path, "/stream")) streamed(to);
    else if (!strcmp(path, "/go")) answer(to, "%s", writing("/tmp/go"));
    else if (!strcmp(path, "/upgrade")) upgraded(to);
    else if (!strcmp(path, "/exit")) _exit(3);
    else if (!strcmp(path, "/hang")) pause();
    else if (!strcmp(path, "/hog")) for (;;) memset(malloc(1 << 20), 1, 1 << 20);
    else if (!strcmp(path, "/write"))
        answer(to, "/: %s\n/etc: %s\n/server: %s\n/tmp: %s\n/.martlet: %s\n/.interpreter: %s\n", writing("/made"),
               writing("/etc/made"), writing("/server"), writing("/tmp/made"), writing("/.martlet/made"),
               writing("/.interpreter/made"));
    else {
        printf("asked for %s\n", path);
        answer(to, "hello from %d", getpid());
    }
}

static void *converse(void *given) {
    int to = (int)(long)given, size = 0;
    char said[1 << 16], path[1024];
    for (ssize_t more; (more = read(to, said + size, sizeof said - size - 1)) > 0;) {
        said[size += more] = 0;
        if (!strstr(said, "\r\n\r\n")) continue; /* no request of these tests has a body */
        if (sscanf(said, "%*s %1023s", path) == 1) serve(to, path);
        size = 0;
    }
    close(to);
    return NULL;
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "serve";
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("started as %s\n", mode);
    if (!strcmp(mode, "exit")) return atoi(arguments[2]);
    if (!strcmp(mode, "silent")) pause();
    int port = atoi(!strcmp(mode, "elsewhere") ? arguments[2] : getenv("PORT"));
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&here, sizeof here) || listen(listener, 64)) return perror("listen"), 1;
    for (int next; (next = accept(listener, NULL, NULL)) >= 0;) {
        pthread_t thread;
        pthread_create(&thread, NULL, converse, (void *)(long)next);
        pthread_detach(thread);
    }
    return perror("accept"), 1;
}
