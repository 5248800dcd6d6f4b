/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Preloaded into a server by test_restart.py:
 *
 *   SIGUSR1   the thread that gets it executes $EXECUTES, or the server itself, in place, with the server's arguments
 *   SIGURG    children execute something, by fork and by vfork; when they have ended the file $EXECUTED is made
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGS_MAX 64
#define FDS_MAX 1024

static char *path, *arguments[ARGS_MAX];
static const char *executed;

/* Closes files as the server's own restartServer() does, because an open socket would keep its port. */
static void on_execute(int signal)
{
	for (int fd = 3; fd < FDS_MAX; fd++)
		close(fd);
	execv(path, arguments);
	_exit(127);
}

static void on_children(int signal)
{
	static char *const nothing[] = { "true", NULL };
	pid_t child = fork();

	if (!child) {
		execv("/bin/true", nothing);
		_exit(127);
	}
	waitpid(child, NULL, 0);
	child = vfork();
	if (!child) {
		execv("/bin/true", nothing);
		_exit(127);
	}
	waitpid(child, NULL, 0);
	close(open(executed, O_CREAT | O_WRONLY, 0600));
}

/* The dynamic linker hands these to every constructor. The server overwrites them later, with its title. */
__attribute__((constructor)) static void prepare(int argc, char **argv, char **envp)
{
	struct sigaction action = { .sa_handler = on_execute, .sa_flags = SA_RESTART };
	const char *other = getenv("EXECUTES");

	path = strdup(other ? other : argv[0]);
	for (int i = 0; i < argc && i < ARGS_MAX - 1; i++)
		arguments[i] = strdup(argv[i]);
	executed = strdup(getenv("EXECUTED"));
	sigaction(SIGUSR1, &action, NULL);
	action.sa_handler = on_children;
	sigaction(SIGURG, &action, NULL);
}
