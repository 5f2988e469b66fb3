// What the agent knows of a process's mappings, and the name of its socket.
#include "dsm/dshm_agent/process.hpp"

#include <gtest/gtest.h>

namespace dsm::dshm_agent {
namespace {

constexpr std::uint64_t page = sysv::page_bytes;

TEST(Attach, KnowsWhatIsStillThere) {
  Attach attach(7);
  EXPECT_FALSE(attach.is_mapped());
  attach.map(100 * page, 10 * page);
  EXPECT_TRUE(attach.is_mapped());
  EXPECT_TRUE(attach.unmap(103 * page, 2 * page));   // a hole
  EXPECT_TRUE(attach.unmap(90 * page, 11 * page));   // its first page
  EXPECT_TRUE(attach.unmap(109 * page, 50 * page));  // its last
  EXPECT_FALSE(attach.unmap(103 * page, 2 * page));  // nothing is left there
  EXPECT_FALSE(attach.unmap(110 * page, page));
  EXPECT_FALSE(attach.contains(100 * page));
  EXPECT_TRUE(attach.contains(101 * page));
  EXPECT_TRUE(attach.contains(103 * page - 1));
  EXPECT_FALSE(attach.contains(103 * page));
  EXPECT_FALSE(attach.contains(105 * page - 1));
  EXPECT_TRUE(attach.contains(105 * page));
  EXPECT_FALSE(attach.contains(109 * page));
  EXPECT_EQ(attach.address(), 100 * page);
  EXPECT_EQ(attach.at(page), 101 * page);
  EXPECT_EQ(attach.at(3 * page), std::nullopt);
  EXPECT_EQ(attach.at(10 * page), std::nullopt);
  EXPECT_TRUE(attach.unmap(0, 200 * page));
  EXPECT_FALSE(attach.is_mapped());
}

TEST(Process, FindsAnAttachByItsAddress) {
  Process process;
  process.attaches.emplace_back(1).map(10 * page, 2 * page);
  process.attaches.emplace_back(2).map(12 * page, page);
  process.attaches.emplace_back(3);
  EXPECT_EQ(process.attach_at(9 * page), nullptr);
  EXPECT_EQ(process.attach_at(11 * page)->id(), 1);
  EXPECT_EQ(process.attach_at(12 * page)->id(), 2);
  EXPECT_EQ(process.attach_at(13 * page), nullptr);
  EXPECT_TRUE(process.has(1));
  EXPECT_FALSE(process.has(3)) << "granted, but not mapped yet";
}

TEST(AgentName, FitsAndTellsServersApart) {
  EXPECT_EQ(agent_name(1000, "localhost:8080"), "dshm-1-1000-localhost:8080");
  const std::string base(150, 'x');
  const std::string one = agent_name(1000, base + "1:8080"), two = agent_name(1000, base + "2:8080");
  EXPECT_EQ(one.size(), 107U);
  EXPECT_EQ(two.size(), 107U);
  EXPECT_NE(one, two);
  EXPECT_EQ(one, agent_name(1000, base + "1:8080"));
}

}  // namespace
}  // namespace dsm::dshm_agent
