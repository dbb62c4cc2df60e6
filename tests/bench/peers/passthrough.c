// A pass-through filesystem on libfuse's low-level API, multi-threaded: what FUSE itself costs.
// Written for this because libfuse's own example (passthrough_ll) finds inodes by walking a list,
// so it slows down with the number of files it has seen; here they are in a hash table.
//   passthrough SRC MNT TIMEOUT THREADS [FLAGS]   TIMEOUT: entry and attribute cache in seconds (0: none)
//   FLAGS: w writeback cache; l lean: no splice, each thread keeps its buffers (libfuse's fuse_reply_data takes a
//   fresh one for each read, and fresh pages are dear on some virtual machines)
#define FUSE_USE_VERSION 312
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
struct node {
  struct node* next;
  dev_t dev;
  ino_t ino;
  uint64_t refs;
  int fd;
};
#define NB 65536
static struct node *tab[NB], root;
static pthread_mutex_t mu[256];
static double timeout;
static int writeback, lean;
static unsigned hsh(dev_t d, ino_t i) {
  uint64_t x = (i ^ ((uint64_t)d << 48)) * 0x9E3779B97F4A7C15ull;
  return x >> 48;
}
static struct node* N(fuse_ino_t i) { return i == FUSE_ROOT_ID ? &root : (struct node*)(uintptr_t)i; }
static int fd_of(fuse_ino_t i) { return N(i)->fd; }
static void path_of(fuse_ino_t i, char* b) { sprintf(b, "/proc/self/fd/%d", fd_of(i)); }
static int look(fuse_ino_t par, const char* name, struct fuse_entry_param* e) {
  memset(e, 0, sizeof *e);
  e->attr_timeout = e->entry_timeout = timeout;
  int fd = openat(fd_of(par), name, O_PATH | O_NOFOLLOW);
  if (fd < 0) return errno;
  if (fstatat(fd, "", &e->attr, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)) {
    int s = errno;
    close(fd);
    return s;
  }
  unsigned h = hsh(e->attr.st_dev, e->attr.st_ino);
  pthread_mutex_lock(&mu[h & 255]);
  struct node* n;
  for (n = tab[h]; n; n = n->next)
    if (n->ino == e->attr.st_ino && n->dev == e->attr.st_dev) break;
  if (n) {
    n->refs++;
    close(fd);
  } else {
    n = malloc(sizeof *n);
    n->dev = e->attr.st_dev;
    n->ino = e->attr.st_ino;
    n->refs = 1;
    n->fd = fd;
    n->next = tab[h];
    tab[h] = n;
  }
  pthread_mutex_unlock(&mu[h & 255]);
  e->ino = (uintptr_t)n;
  return 0;
}
static void drop(fuse_ino_t i, uint64_t k) {
  if (i == FUSE_ROOT_ID) return;
  struct node* n = N(i);
  unsigned h = hsh(n->dev, n->ino);
  int fd = -1;
  pthread_mutex_lock(&mu[h & 255]);
  n->refs -= k;
  if (!n->refs) {
    struct node** p = &tab[h];
    while (*p != n) p = &(*p)->next;
    *p = n->next;
    fd = n->fd;
    free(n);
  }
  pthread_mutex_unlock(&mu[h & 255]);
  if (fd >= 0) close(fd);
}
static void ent(fuse_req_t r, fuse_ino_t p, const char* nm) {
  struct fuse_entry_param e;
  int s = look(p, nm, &e);
  if (s)
    fuse_reply_err(r, s);
  else
    fuse_reply_entry(r, &e);
}
#define ERR(x) fuse_reply_err(r, (x) == -1 ? errno : 0)
static char* tbuf(size_t k) {
  static __thread char* b;
  static __thread size_t have;
  if (k > have) {
    free(b);
    have = k < (1u << 20) ? 1u << 20 : k;
    b = malloc(have);
  }
  return b;
}
static void o_init(void* u, struct fuse_conn_info* c) {
  if (lean) c->want &= ~(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
  if (writeback && (c->capable & FUSE_CAP_WRITEBACK_CACHE)) c->want |= FUSE_CAP_WRITEBACK_CACHE;
}
static void o_lookup(fuse_req_t r, fuse_ino_t p, const char* nm) { ent(r, p, nm); }
static void o_forget(fuse_req_t r, fuse_ino_t i, uint64_t k) {
  drop(i, k);
  fuse_reply_none(r);
}
static void o_forgetm(fuse_req_t r, size_t c, struct fuse_forget_data* f) {
  for (size_t j = 0; j < c; j++) drop(f[j].ino, f[j].nlookup);
  fuse_reply_none(r);
}
static void o_getattr(fuse_req_t r, fuse_ino_t i, struct fuse_file_info* f) {
  struct stat s;
  if (fstatat(fd_of(i), "", &s, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
    fuse_reply_err(r, errno);
  else
    fuse_reply_attr(r, &s, timeout);
}
static void o_setattr(fuse_req_t r, fuse_ino_t i, struct stat* a, int v, struct fuse_file_info* f) {
  char b[64];
  path_of(i, b);
  int e = 0;
  if (v & FUSE_SET_ATTR_MODE) e = f ? fchmod(f->fh, a->st_mode) : chmod(b, a->st_mode);
  if (!e && v & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
    e = fchownat(fd_of(i), "", v & FUSE_SET_ATTR_UID ? a->st_uid : (uid_t)-1,
                 v & FUSE_SET_ATTR_GID ? a->st_gid : (gid_t)-1, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
  if (!e && v & FUSE_SET_ATTR_SIZE) e = f ? ftruncate(f->fh, a->st_size) : truncate(b, a->st_size);
  if (!e && v & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME)) {
    struct timespec t[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
    if (v & FUSE_SET_ATTR_ATIME_NOW)
      t[0].tv_nsec = UTIME_NOW;
    else if (v & FUSE_SET_ATTR_ATIME)
      t[0] = a->st_atim;
    if (v & FUSE_SET_ATTR_MTIME_NOW)
      t[1].tv_nsec = UTIME_NOW;
    else if (v & FUSE_SET_ATTR_MTIME)
      t[1] = a->st_mtim;
    e = f ? futimens(f->fh, t) : utimensat(AT_FDCWD, b, t, 0);
  }
  if (e)
    fuse_reply_err(r, errno);
  else
    o_getattr(r, i, f);
}
static void o_readlink(fuse_req_t r, fuse_ino_t i) {
  char b[4097];
  ssize_t k = readlinkat(fd_of(i), "", b, 4096);
  if (k < 0)
    fuse_reply_err(r, errno);
  else {
    b[k] = 0;
    fuse_reply_readlink(r, b);
  }
}
static void o_mknod(fuse_req_t r, fuse_ino_t p, const char* n, mode_t m, dev_t d) {
  if (mknodat(fd_of(p), n, m, d))
    fuse_reply_err(r, errno);
  else
    ent(r, p, n);
}
static void o_mkdir(fuse_req_t r, fuse_ino_t p, const char* n, mode_t m) {
  if (mkdirat(fd_of(p), n, m))
    fuse_reply_err(r, errno);
  else
    ent(r, p, n);
}
static void o_symlink(fuse_req_t r, const char* l, fuse_ino_t p, const char* n) {
  if (symlinkat(l, fd_of(p), n))
    fuse_reply_err(r, errno);
  else
    ent(r, p, n);
}
static void o_link(fuse_req_t r, fuse_ino_t i, fuse_ino_t p, const char* n) {
  char b[64];
  path_of(i, b);
  if (linkat(AT_FDCWD, b, fd_of(p), n, AT_SYMLINK_FOLLOW))
    fuse_reply_err(r, errno);
  else
    ent(r, p, n);
}
static void o_unlink(fuse_req_t r, fuse_ino_t p, const char* n) { ERR(unlinkat(fd_of(p), n, 0)); }
static void o_rmdir(fuse_req_t r, fuse_ino_t p, const char* n) { ERR(unlinkat(fd_of(p), n, AT_REMOVEDIR)); }
static void o_rename(fuse_req_t r, fuse_ino_t p, const char* n, fuse_ino_t q, const char* m, unsigned fl) {
  ERR(renameat2(fd_of(p), n, fd_of(q), m, fl));
}
static int oflags(int f) {
  if (writeback) {
    if ((f & O_ACCMODE) == O_WRONLY) f = (f & ~O_ACCMODE) | O_RDWR;
    f &= ~O_APPEND;
  }
  return f & ~O_NOFOLLOW;
}
static void o_open(fuse_req_t r, fuse_ino_t i, struct fuse_file_info* f) {
  char b[64];
  path_of(i, b);
  int fd = open(b, oflags(f->flags));
  if (fd < 0)
    fuse_reply_err(r, errno);
  else {
    f->fh = fd;
    fuse_reply_open(r, f);
  }
}
static void o_create(fuse_req_t r, fuse_ino_t p, const char* n, mode_t m, struct fuse_file_info* f) {
  struct fuse_entry_param e;
  int fd = openat(fd_of(p), n, (oflags(f->flags) | O_CREAT) & ~O_NOFOLLOW, m);
  if (fd < 0) {
    fuse_reply_err(r, errno);
    return;
  }
  f->fh = fd;
  int s = look(p, n, &e);
  if (s) {
    close(fd);
    fuse_reply_err(r, s);
  } else
    fuse_reply_create(r, &e, f);
}
static void o_read(fuse_req_t r, fuse_ino_t i, size_t k, off_t o, struct fuse_file_info* f) {
  struct fuse_bufvec b = FUSE_BUFVEC_INIT(k);
  if (lean) {
    char* m = tbuf(k);
    ssize_t n = pread(f->fh, m, k, o);
    if (n < 0)
      fuse_reply_err(r, errno);
    else
      fuse_reply_buf(r, m, n);
    return;
  }
  b.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
  b.buf[0].fd = f->fh;
  b.buf[0].pos = o;
  fuse_reply_data(r, &b, FUSE_BUF_SPLICE_MOVE);
}
static void o_write(fuse_req_t r, fuse_ino_t i, struct fuse_bufvec* in, off_t o, struct fuse_file_info* f) {
  struct fuse_bufvec b = FUSE_BUFVEC_INIT(fuse_buf_size(in));
  b.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
  b.buf[0].fd = f->fh;
  b.buf[0].pos = o;
  ssize_t k = fuse_buf_copy(&b, in, 0);
  if (k < 0)
    fuse_reply_err(r, -k);
  else
    fuse_reply_write(r, k);
}
static void o_flush(fuse_req_t r, fuse_ino_t i, struct fuse_file_info* f) { ERR(close(dup(f->fh))); }
static void o_release(fuse_req_t r, fuse_ino_t i, struct fuse_file_info* f) {
  close(f->fh);
  fuse_reply_err(r, 0);
}
static void o_fsync(fuse_req_t r, fuse_ino_t i, int d, struct fuse_file_info* f) {
  ERR(d ? fdatasync(f->fh) : fsync(f->fh));
}
struct dh {
  DIR* d;
  struct dirent* e;
  off_t off;
};
static void o_opendir(fuse_req_t r, fuse_ino_t i, struct fuse_file_info* f) {
  int fd = openat(fd_of(i), ".", O_RDONLY | O_DIRECTORY);
  struct dh* h;
  if (fd < 0) {
    fuse_reply_err(r, errno);
    return;
  }
  h = calloc(1, sizeof *h);
  h->d = fdopendir(fd);
  f->fh = (uintptr_t)h;
  fuse_reply_open(r, f);
}
static void rd(fuse_req_t r, fuse_ino_t i, size_t k, off_t o, struct fuse_file_info* f, int plus) {
  struct dh* h = (void*)(uintptr_t)f->fh;
  char *b = tbuf(k), *p = b;
  size_t left = k;
  int s = 0;
  if (o != h->off) {
    seekdir(h->d, o);
    h->e = 0;
    h->off = o;
  }
  for (;;) {
    if (!h->e) {
      errno = 0;
      h->e = readdir(h->d);
      if (!h->e) {
        s = errno;
        break;
      }
    }
    size_t n;
    fuse_ino_t got = 0;
    if (plus) {
      struct fuse_entry_param e;
      int dot = !strcmp(h->e->d_name, ".") || !strcmp(h->e->d_name, "..");
      if (dot) {
        memset(&e, 0, sizeof e);
        e.attr.st_ino = h->e->d_ino;
        e.attr.st_mode = h->e->d_type << 12;
      } else {
        s = look(i, h->e->d_name, &e);
        if (s == ENOENT) {
          s = 0;
          h->off = h->e->d_off;
          h->e = 0;
          continue;
        }
        if (s) break;
        got = e.ino;
      }
      n = fuse_add_direntry_plus(r, p, left, h->e->d_name, &e, h->e->d_off);
    } else {
      struct stat st = {.st_ino = h->e->d_ino, .st_mode = h->e->d_type << 12};
      n = fuse_add_direntry(r, p, left, h->e->d_name, &st, h->e->d_off);
    }
    if (n > left) {
      if (got) drop(got, 1);
      break;
    }
    p += n;
    left -= n;
    h->off = h->e->d_off;
    h->e = 0;
  }
  if (s && left == k)
    fuse_reply_err(r, s);
  else
    fuse_reply_buf(r, b, k - left);
}
static void o_readdir(fuse_req_t r, fuse_ino_t i, size_t k, off_t o, struct fuse_file_info* f) { rd(r, i, k, o, f, 0); }
static void o_readdirp(fuse_req_t r, fuse_ino_t i, size_t k, off_t o, struct fuse_file_info* f) {
  rd(r, i, k, o, f, 1);
}
static void o_releasedir(fuse_req_t r, fuse_ino_t i, struct fuse_file_info* f) {
  struct dh* h = (void*)(uintptr_t)f->fh;
  closedir(h->d);
  free(h);
  fuse_reply_err(r, 0);
}
static void o_fsyncdir(fuse_req_t r, fuse_ino_t i, int d, struct fuse_file_info* f) {
  struct dh* h = (void*)(uintptr_t)f->fh;
  ERR(fsync(dirfd(h->d)));
}
static void o_statfs(fuse_req_t r, fuse_ino_t i) {
  struct statvfs v;
  if (fstatvfs(fd_of(i), &v))
    fuse_reply_err(r, errno);
  else
    fuse_reply_statfs(r, &v);
}
static void o_fallocate(fuse_req_t r, fuse_ino_t i, int m, off_t o, off_t l, struct fuse_file_info* f) {
  ERR(fallocate(f->fh, m, o, l));
}
static const struct fuse_lowlevel_ops ops = {.init = o_init,
                                             .lookup = o_lookup,
                                             .forget = o_forget,
                                             .forget_multi = o_forgetm,
                                             .getattr = o_getattr,
                                             .setattr = o_setattr,
                                             .readlink = o_readlink,
                                             .mknod = o_mknod,
                                             .mkdir = o_mkdir,
                                             .symlink = o_symlink,
                                             .link = o_link,
                                             .unlink = o_unlink,
                                             .rmdir = o_rmdir,
                                             .rename = o_rename,
                                             .open = o_open,
                                             .create = o_create,
                                             .read = o_read,
                                             .write_buf = o_write,
                                             .flush = o_flush,
                                             .release = o_release,
                                             .fsync = o_fsync,
                                             .opendir = o_opendir,
                                             .readdir = o_readdir,
                                             .readdirplus = o_readdirp,
                                             .releasedir = o_releasedir,
                                             .fsyncdir = o_fsyncdir,
                                             .statfs = o_statfs,
                                             .fallocate = o_fallocate};  // no xattr, no locks: the kernel stops asking
int main(int c, char** v) {
  if (c < 5) return 2;
  int threads = atoi(v[4]);
  timeout = atof(v[3]);
  writeback = c > 5 && strchr(v[5], 'w');
  lean = c > 5 && strchr(v[5], 'l');
  umask(0);
  for (int i = 0; i < 256; i++) pthread_mutex_init(&mu[i], 0);
  struct rlimit l = {1 << 20, 1 << 20};
  if (setrlimit(RLIMIT_NOFILE, &l)) {
    getrlimit(RLIMIT_NOFILE, &l);
    l.rlim_cur = l.rlim_max;
    setrlimit(RLIMIT_NOFILE, &l);
  }
  root.fd = open(v[1], O_PATH);
  if (root.fd < 0) {
    perror(v[1]);
    return 1;
  }
  char* av[] = {v[0], "-o", "allow_other,default_permissions,fsname=passthrough,subtype=passthrough"};
  struct fuse_args a = FUSE_ARGS_INIT(3, av);
  struct fuse_session* s = fuse_session_new(&a, &ops, sizeof ops, 0);
  if (!s || fuse_set_signal_handlers(s) || fuse_session_mount(s, v[2])) return 1;
  fuse_daemonize(0);
  struct fuse_loop_config* lc = fuse_loop_cfg_create();
  fuse_loop_cfg_set_clone_fd(lc, 1);
  fuse_loop_cfg_set_max_threads(lc, threads);
  fuse_loop_cfg_set_idle_threads(lc, threads);
  int rc = threads > 1 ? fuse_session_loop_mt(s, lc) : fuse_session_loop(s);
  fuse_session_unmount(s);
  fuse_session_destroy(s);
  return rc != 0;
}
