#include "cluster/frame_stream.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace kinfs::cluster {
namespace {

constexpr std::size_t kPartsPerWrite = 64;
constexpr int kSendBufferBytes = 4 << 20;

std::uint32_t read_le32(const char* p) {
  std::uint32_t v = 0;
  for (int i = 3; i >= 0; --i) v = v << 8 | static_cast<unsigned char>(p[i]);
  return v;
}

void write_le32(char* p, std::size_t v) {
  for (int i = 0; i < 4; ++i) p[i] = static_cast<char>(v >> (8 * i));
}

}  // namespace

Result<FrameReader::Input> FrameReader::fill() {
  if (begin_ == end_) begin_ = end_ = 0;
  if (end_ == buffer_.size()) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  if (end_ == buffer_.size()) return Input::kSome;  // frames wait here to be taken first
  // A block goes straight to where it stays; what follows it lands in the buffer by the same call.
  iovec parts[2];
  int count = 0;
  const bool into_payload = in_frame_ && payload_ && begin_ == end_;
  const std::size_t wanted = into_payload ? payload_bytes_ - payload_filled_ : 0;
  if (wanted > 0) parts[count++] = {payload_->data() + payload_filled_, wanted};
  parts[count++] = {buffer_.data() + end_, buffer_.size() - end_};
  const std::size_t room = wanted + (buffer_.size() - end_);

  ssize_t n = 0;
  do {
    n = ::readv(fd_, parts, count);
  } while (n < 0 && errno == EINTR);
  if (n == 0) {
    if (in_frame_ || begin_ != end_) return fail(Errc::kCorrupt, "the connection ended within a frame");
    return Input::kEnd;
  }
  if (n < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return Input::kDrained;
    return fail(Errc::kIo, fmt::format("cannot read from the socket: {}", std::strerror(errno)));
  }
  const auto got = static_cast<std::size_t>(n);
  payload_filled_ += std::min(got, wanted);
  end_ += got - std::min(got, wanted);
  return got < room ? Input::kDrained : Input::kSome;
}

std::size_t FrameReader::take(Bytes& to, std::size_t wanted) {
  const auto n = std::min(wanted, end_ - begin_);
  to.append(buffer_.data() + begin_, n);
  begin_ += n;
  return n;
}

Result<std::optional<Frame>> FrameReader::next() {
  if (!in_frame_) {
    if (end_ - begin_ < kPrefixBytes) {
      return std::nullopt;
    }
    header_bytes_ = read_le32(buffer_.data() + begin_);
    payload_bytes_ = read_le32(buffer_.data() + begin_ + 4);
    if (header_bytes_ == 0 || header_bytes_ > kMaxHeaderBytes + kHopBytes) {
      return fail(Errc::kCorrupt, fmt::format("a frame with a header of {} bytes; allowed are 1 to {}", header_bytes_,
                                              kMaxHeaderBytes + kHopBytes));
    }
    if (payload_bytes_ > kMaxBlockBytes) {
      return fail(Errc::kCorrupt, fmt::format("a frame with a payload of {} bytes; at most {} are allowed",
                                              payload_bytes_, kMaxBlockBytes));
    }
    begin_ += kPrefixBytes;
    in_frame_ = true;
    payload_filled_ = 0;
    header_.clear();
  }
  if (header_.size() < header_bytes_) take(header_, header_bytes_ - header_.size());
  if (header_.size() < header_bytes_) return std::nullopt;
  if (payload_bytes_ > 0) {
    if (!payload_) payload_ = std::make_shared<Bytes>(payload_bytes_, '\0');
    const auto n = std::min(payload_bytes_ - payload_filled_, end_ - begin_);
    std::memcpy(payload_->data() + payload_filled_, buffer_.data() + begin_, n);
    payload_filled_ += n;
    begin_ += n;
    if (payload_filled_ < payload_bytes_) return std::nullopt;
  }
  in_frame_ = false;
  return Frame{std::move(header_), std::move(payload_)};
}

void FrameWriter::queue(SharedBytes header, const HopBytes& hop, SharedBytes payload) {
  Item item{{}, std::move(header), hop, std::move(payload)};
  write_le32(item.prefix.data(), item.header->size() + hop.size());
  write_le32(item.prefix.data() + 4, item.payload ? item.payload->size() : 0);
  pending_bytes_ += item.size();
  queue_.push_back(std::move(item));
}

Result<bool> FrameWriter::flush() {
  while (!queue_.empty()) {
    iovec parts[kPartsPerWrite];
    std::size_t count = 0;
    std::size_t skip = written_of_first_;
    const auto part = [&](const char* data, std::size_t size) {
      const auto skipped = std::min(skip, size);
      skip -= skipped;
      if (size > skipped) parts[count++] = {const_cast<char*>(data) + skipped, size - skipped};
    };
    for (auto it = queue_.begin(); it != queue_.end() && count + 4 <= kPartsPerWrite; ++it) {
      part(it->prefix.data(), it->prefix.size());
      part(it->header->data(), it->header->size());
      part(it->hop.data(), it->hop.size());
      if (it->payload) part(it->payload->data(), it->payload->size());
    }
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = count;
    const auto n = ::sendmsg(fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
      return fail(Errc::kIo, fmt::format("cannot write to the socket: {}", std::strerror(errno)));
    }
    pending_bytes_ -= static_cast<std::size_t>(n);
    auto left = static_cast<std::size_t>(n) + written_of_first_;
    while (!queue_.empty() && left >= queue_.front().size()) {
      left -= queue_.front().size();
      queue_.pop_front();
    }
    written_of_first_ = left;
  }
  return true;
}

void enlarge_send_buffer(int fd) {
  const int size = kSendBufferBytes;
  // The first needs a privilege, the second is cut to what the system allows to everybody.
  if (::setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) != 0) {
    (void)::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  }
}

}  // namespace kinfs::cluster
