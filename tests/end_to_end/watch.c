/* Preloaded into a process and all that it starts: notes which hosts and addresses are asked for,
   by Python or by native code. One line a call in the file that WATCHED_CALLS names. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void note(const char *call, const char *host, int port) {
    const char *path = getenv("WATCHED_CALLS");
    char line[512];
    int length = snprintf(line, sizeof line, "%s %s %d\n", call, host ? host : "-", port);
    int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (file < 0) return;
    if (write(file, line, length) != length) abort();
    close(file);
}

static void note_address(const char *call, const struct sockaddr *address) {
    char text[INET6_ADDRSTRLEN] = "";
    if (address && address->sa_family == AF_INET) {
        const struct sockaddr_in *found = (const void *)address;
        inet_ntop(AF_INET, &found->sin_addr, text, sizeof text);
        note(call, text, ntohs(found->sin_port));
    } else if (address && address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *found = (const void *)address;
        inet_ntop(AF_INET6, &found->sin6_addr, text, sizeof text);
        note(call, text, ntohs(found->sin6_port));
    }
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        dlsym(RTLD_NEXT, "getaddrinfo");
    note("getaddrinfo", host, service ? atoi(service) : 0);
    return next(host, service, hints, found);
}

struct hostent *gethostbyname(const char *host) {
    struct hostent *(*next)(const char *) = dlsym(RTLD_NEXT, "gethostbyname");
    note("gethostbyname", host, 0);
    return next(host);
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
    int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
    note_address("connect", address);
    return next(socket, address, length);
}

ssize_t sendto(int socket, const void *data, size_t size, int flags,
               const struct sockaddr *address, socklen_t length) {
    ssize_t (*next)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) =
        dlsym(RTLD_NEXT, "sendto");
    note_address("sendto", address);
    return next(socket, data, size, flags, address, length);
}
