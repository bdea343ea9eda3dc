"""A calculator: ``{"a": 6, "b": 7, "operation": "multiply"}`` is 42."""

import operator

OPERATIONS = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
}


def handle(request):
    data = request.get_json()
    a, b = data.get("a", 0), data.get("b", 0)
    name = data.get("operation", "add")

    if name not in OPERATIONS:
        return {"error": "Unsupported operation", "supported": list(OPERATIONS)}, 400
    if not all(isinstance(number, int | float) for number in (a, b)):
        return {"error": "a and b must be numbers"}, 400
    if name == "divide" and b == 0:
        return {"error": "Division by zero"}, 400

    return {"result": OPERATIONS[name](a, b), "operation": name, "inputs": {"a": a, "b": b}}
