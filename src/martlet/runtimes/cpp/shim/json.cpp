// Json: reading and writing.
#include <charconv>
#include <cmath>
#include <cstdio>

#include "shim.hpp"

namespace martlet {

namespace {

constexpr int max_depth = 128;

class JsonParser {
  public:
    explicit JsonParser(std::string_view text) : text_(text) {}

    Json document() {
        Json document = value(0);
        space();
        if (at_ < text_.size()) {
            fail("something follows the value");
        }
        return document;
    }

  private:
    [[noreturn]] void fail(const char* what) const {
        throw BadJson("the request body is not JSON: " + std::string(what) + " at byte " + std::to_string(at_));
    }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    void space() {
        while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) {
            ++at_;
        }
    }

    bool skip(std::string_view word) {
        bool there = text_.substr(at_).starts_with(word);
        at_ += there ? word.size() : 0;
        return there;
    }

    Json value(int depth) {
        if (depth > max_depth) {
            fail("too many brackets in each other");
        }
        space();
        switch (peek()) {
        case '{':
            return object(depth);
        case '[':
            return array(depth);
        case '"':
            return Json(string());
        default:
            break;
        }
        if (skip("null")) {
            return nullptr;
        }
        if (skip("true")) {
            return true;
        }
        if (skip("false")) {
            return false;
        }
        return number();
    }

    Json array(int depth) {
        Json::Array items;
        ++at_;
        space();
        while (!skip("]")) {
            if (!items.empty() && !skip(",")) {
                fail("an array lacks a comma");
            }
            items.push_back(value(depth + 1));
            space();
        }
        return items;
    }

    Json object(int depth) {
        Json::Object members;
        ++at_;
        space();
        while (!skip("}")) {
            if (!members.empty() && !skip(",")) {
                fail("an object lacks a comma");
            }
            space();
            if (peek() != '"') {
                fail("an object lacks a name");
            }
            std::string name = string();
            space();
            if (!skip(":")) {
                fail("an object lacks a colon");
            }
            members.emplace_back(std::move(name), value(depth + 1));
            space();
        }
        return members;
    }

    Json number() {
        std::size_t end = text_.find_first_not_of("+-.eE0123456789", at_);
        std::string_view digits = text_.substr(at_, end == std::string_view::npos ? end : end - at_);
        std::string_view unsigned_digits = digits.substr(digits.starts_with('-') ? 1 : 0);
        auto digit = [&](std::size_t index) {
            return index < unsigned_digits.size() && unsigned_digits[index] >= '0' && unsigned_digits[index] <= '9';
        };
        std::size_t dot = unsigned_digits.find('.');
        if (!digit(0) || (unsigned_digits[0] == '0' && digit(1)) ||
            (dot != std::string_view::npos && !digit(dot + 1))) {
            fail("there is no value");
        }
        const char* last = digits.data() + digits.size();
        std::int64_t integer = 0;
        double real = 0;
        if (auto [rest, error] = std::from_chars(digits.data(), last, integer); error == std::errc() && rest == last) {
            at_ += digits.size();
            return integer;
        }
        if (auto [rest, error] = std::from_chars(digits.data(), last, real); error != std::errc() || rest != last) {
            fail("a number is malformed");
        }
        at_ += digits.size();
        return real;
    }

    std::string string() {
        std::string text;
        ++at_;
        while (at_ < text_.size()) {
            char letter = text_[at_++];
            if (letter == '"') {
                return text;
            }
            if (static_cast<unsigned char>(letter) < ' ') {
                fail("a string has a control character");
            }
            if (letter == '\\') {
                escape(text);
            } else {
                text += letter;
            }
        }
        fail("a string does not end");
    }

    void escape(std::string& text) {
        static constexpr std::string_view names = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
        char name = peek();
        ++at_;
        if (std::size_t known = names.find(name); name && known != std::string_view::npos) {
            text += meanings[known];
        } else if (name == 'u') {
            unicode(text);
        } else {
            fail("a string has an unknown escape");
        }
    }

    void unicode(std::string& text) {
        std::uint32_t point = unit();
        if (point >= 0xd800 && point < 0xe000) {
            std::uint32_t low = point < 0xdc00 && skip("\\u") ? unit() : 0;
            bool pair = low >= 0xdc00 && low < 0xe000;
            point = pair ? 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00) : 0xfffd;
        }
        auto rest = [&](int shift) { text += static_cast<char>(0x80 | ((point >> shift) & 0x3f)); };
        if (point < 0x80) {
            text += static_cast<char>(point);
        } else if (point < 0x800) {
            text += static_cast<char>(0xc0 | (point >> 6)), rest(0);
        } else if (point < 0x10000) {
            text += static_cast<char>(0xe0 | (point >> 12)), rest(6), rest(0);
        } else {
            text += static_cast<char>(0xf0 | (point >> 18)), rest(12), rest(6), rest(0);
        }
    }

    std::uint32_t unit() {
        std::string_view digits = text_.substr(at_, 4);
        std::uint32_t unit = 0;
        auto [rest, error] = std::from_chars(digits.data(), digits.data() + digits.size(), unit, 16);
        if (error != std::errc() || digits.size() < 4 || rest != digits.data() + 4) {
            fail("a string has a malformed escape");
        }
        at_ += 4;
        return unit;
    }

    std::string_view text_;
    std::size_t at_ = 0;
};

} // namespace

Json Json::parse(std::string_view text) { return JsonParser(text).document(); }

std::string Json::dump() const {
    std::string text;
    write(text);
    return text;
}

std::optional<double> Json::as_number() const {
    if (auto integer = std::get_if<std::int64_t>(&value_)) {
        return static_cast<double>(*integer);
    }
    auto real = std::get_if<double>(&value_);
    return real ? std::optional(*real) : std::nullopt;
}

const Json* Json::find(std::string_view name) const {
    if (auto members = as_object()) {
        for (auto& [key, value] : *members) {
            if (key == name) {
                return &value;
            }
        }
    }
    return nullptr;
}

Json& Json::operator[](std::string_view name) {
    if (is_null()) {
        value_ = Object();
    }
    if (auto found = find(name)) {
        return const_cast<Json&>(*found);
    }
    return std::get<Object>(value_).emplace_back(std::string(name), Json()).second;
}

void Json::push_back(Json item) {
    if (is_null()) {
        value_ = Array();
    }
    std::get<Array>(value_).push_back(std::move(item));
}

void Json::write(std::string& text) const {
    struct Writer {
        std::string& text;
        void operator()(std::nullptr_t) const { text += "null"; }
        void operator()(bool value) const { text += value ? "true" : "false"; }
        void operator()(std::int64_t value) const { text += std::to_string(value); }
        void operator()(double value) const {
            char digits[32];
            auto written = std::to_chars(digits, digits + sizeof digits, value);
            text += std::isfinite(value) ? std::string_view(digits, written.ptr) : "null";
        }
        void operator()(const std::string& value) const { text += quote(value); }
        void operator()(const Array& items) const {
            char separator = '[';
            for (auto& item : items) {
                text += std::exchange(separator, ',');
                item.write(text);
            }
            text += items.empty() ? "[]" : "]";
        }
        void operator()(const Object& members) const {
            char separator = '{';
            for (auto& [name, value] : members) {
                text += std::exchange(separator, ',');
                text += quote(name) + ':';
                value.write(text);
            }
            text += members.empty() ? "{}" : "}";
        }
    };
    std::visit(Writer{text}, value_);
}

std::string quote(std::string_view text) {
    std::string quoted = "\"";
    for (char letter : text) {
        if (letter == '"' || letter == '\\') {
            quoted += '\\';
            quoted += letter;
        } else if (static_cast<unsigned char>(letter) < ' ') {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", letter);
            quoted += escape;
        } else {
            quoted += letter;
        }
    }
    return quoted += '"';
}

} // namespace martlet
