// Statistics of a JSON array of numbers.
#include <martlet.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

using martlet::Json, martlet::Request, martlet::Response;

static std::vector<double> numbers(const Json& document) {
    std::vector<double> numbers;
    if (auto items = document.as_array()) {
        for (auto& item : *items) {
            numbers.push_back(item.as_number().value_or(std::nan("")));
        }
    }
    return numbers;
}

Response handle(const Request& request) {
    std::vector<double> values = numbers(request.json());
    if (values.empty() || std::any_of(values.begin(), values.end(), [](double value) { return std::isnan(value); })) {
        return Response(Json::object({{"error", "POST a JSON array of numbers"}})).status(422);
    }
    std::sort(values.begin(), values.end());
    double count = static_cast<double>(values.size());
    double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
    double squares = 0;
    for (double value : values) {
        squares += (value - mean) * (value - mean);
    }
    std::size_t middle = values.size() / 2;
    double median = values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
    return Json::object({{"count", values.size()},
                         {"mean", mean},
                         {"median", median},
                         {"deviation", std::sqrt(squares / count)},
                         {"least", values.front()},
                         {"greatest", values.back()}});
}
