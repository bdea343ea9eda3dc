# Fits a line to the points of a CSV.

handle <- function(request) {
  points <- tryCatch(read.csv(text = request$text()), error = function(error) data.frame())
  if (!all(c("x", "y") %in% names(points)) || !is.numeric(points$x) || !is.numeric(points$y)) {
    return(request$respond(list(error = "send a CSV with numbers in the columns x and y"), 422))
  }
  model <- lm(y ~ x, points)
  at <- as.numeric(request$query$at)
  list(
    intercept = round(coef(model)[[1]], 6),
    slope = round(coef(model)[[2]], 6),
    r_squared = round(summary(model)$r.squared, 6),
    predicted = if (length(at)) round(predict(model, data.frame(x = at))[[1]], 6)
  )
}
