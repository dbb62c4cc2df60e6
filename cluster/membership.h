// Who is a member, and in what part: changes of it, and how all come to know of them.
//
// A change is a new layout on top of those that this node knows (layout_history.h). It asks nobody: it is on this
// node's disk before anybody hears of it, spreads with gossip, and merges with what others changed meanwhile. What is
// told to others is what is on the disk here, so that nothing that somebody goes by is forgotten with a power cut.
//
// Threading: none.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cluster/anti_entropy.h"
#include "cluster/core.h"
#include "cluster/horizon.h"

namespace kinfs::cluster {

class Membership {
 public:
  Membership(Core& core, AntiEntropy& anti_entropy, const Horizon& horizon)
      : core_(core), anti_entropy_(anti_entropy), horizon_(horizon) {}
  /// From the record on disk, if it says who the members are; else what the configuration begins with goes into
  /// `meta`, to be saved.
  void start(NodeMeta& meta);
  /// That record is on disk.
  void started();
  /// Or could not be saved; another try follows.
  void not_saved() { saving_ = false; }
  /// The name of a member; words when there is none.
  std::string name_of(NodeId node) const;
  /// False until it is known who the members are.
  bool known() const { return history().head().id.number != 0; }
  /// Whether this node is to be one when the present change is done.
  bool is_member() const { return history().is_member(core_.config.self); }
  /// Why this host serves nothing now; nullopt: it does.
  std::optional<Error> serves_nothing() const;
  /// It is none any more, a member knows it too, and what was kept for others is theirs: nobody waits for this one.
  bool has_left() const;
  /// When somebody asks for something under that layout.
  enum class Serving {
    kServe,
    kHold,    // until who asks has said what that is
    kRefuse,  // it counts no more
  };
  Serving serves_read(const LayoutId& layout, NodeId from) const;
  Serving serves_write(const LayoutId& layout) const;

  void admit(const Asker& asker, AdmitRequest request);
  void change(const Asker& asker, const ChangeMemberRequest& request);
  void heard(NodeId from, const Gossip& gossip);
  /// What others are told.
  Gossip gossip(bool reply) const;
  /// A message under a layout that is not known here came: its sender is asked for it.
  void behind(NodeId from);
  void tick();

  /// All that this node knows is on its disk.
  bool on_disk() const { return saved_ == begun_ && known(); }
  /// The greatest id of what began before the head was known here.
  std::uint64_t head_since() const { return head_since_; }
  /// This node has done that with the head: on disk first, then all hear of it.
  void say(LayoutHistory::Step step);
  /// See LayoutHistory::settle.
  void settle(LayoutHistory::Step last);

 private:
  /// A change on its way to the disk, and to that of another host.
  struct Making {
    std::uint64_t id = 0;
    Asker asker;
    NodeId node{};
    LayoutHistory history;
    std::vector<Member> members;
    std::uint64_t saved_by = 0;  // the origin that saves it first
  };
  const LayoutHistory& history() const { return core_.placement.history(); }
  Serving serves_unknown(const LayoutId& layout) const;
  /// Why no change can be made here; nullopt: nothing speaks against it.
  std::optional<Error> objection() const;
  std::optional<Error> objection(const Member& member) const;
  std::optional<Error> too_many() const;
  std::optional<Error> objection_to_excuse(NodeId node, bool force) const;
  /// Who that is, by name or id.
  Result<NodeId> find(const std::string& host) const;
  Said now_said(const Said& known);
  void make(const Asker& asker, NodeId node, Role role, std::vector<Member> members);
  void made();
  struct Spreading;
  bool has_spread(const Spreading& made) const;
  Answer said_of(const Spreading& made) const;
  void answer_what_spread();
  void adopt(LayoutHistory history, const std::vector<Member>& members);
  /// The origin of what it saves. `tells`: all others, once it is on disk.
  std::uint64_t save(bool tells = false);
  void save_failed(std::uint64_t origin, const Error& error);
  void tell_all(std::uint64_t origin);

  Core& core_;
  AntiEntropy& anti_entropy_;
  const Horizon& horizon_;
  LayoutHistory on_disk_;
  std::uint64_t begun_ = 0, saved_ = 0;  // records that were saved
  bool saving_ = true;
  std::int64_t saved_ms_ = 0;   // when that was last begun
  std::int64_t asked_ms_ = -1;  // when somebody was last asked who the members are
  std::uint64_t head_since_ = 0;
  LayoutId base_elsewhere_;  // of the member that was last heard of; others that leave may go as well
  Role::Part part_elsewhere_ = Role::Part::kMember;  // that others say this node has, when it knows nothing itself
  std::optional<Making> making_;
  /// Made, and not answered yet: only this host has it on its disk.
  struct Spreading {
    Asker asker;
    LayoutId layout;
    NodeId node{};
    Role role;  // of that host
    std::int64_t until_ms = 0;
    bool is_elsewhere = false;  // on the disk of another host
  };
  std::vector<Spreading> spreading_;
};

}  // namespace kinfs::cluster
