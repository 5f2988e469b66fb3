// What most tests include, for `make PCH=1`: precompiled once, and then read by all of them first. A test includes what it
// uses all the same, for without PCH=1 this is not there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>
