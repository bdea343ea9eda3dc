import java.math.BigDecimal;
import java.math.RoundingMode;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import martlet.Request;
import martlet.Response;

/** The plan of a loan: what is paid each month, and what of it is interest. */
public class Handler {
    record Payment(int month, BigDecimal interest, BigDecimal repaid, BigDecimal left) {}

    record Plan(BigDecimal monthly, List<Payment> payments) {}

    public Object handle(Request request) {
        Map<String, String> query = request.getQuery();
        try {
            BigDecimal amount = new BigDecimal(query.get("amount"));
            BigDecimal rate = new BigDecimal(query.getOrDefault("rate", "3.5"));
            int months = Integer.parseInt(query.getOrDefault("months", "12"));
            if (amount.signum() <= 0 || rate.signum() <= 0 || months < 1 || months > 600) {
                throw new NumberFormatException();
            }
            return plan(amount, rate.movePointLeft(2).doubleValue() / 12, months);
        } catch (NumberFormatException | NullPointerException error) {
            return Response.of(Map.of("error", "?amount=10000&rate=3.5&months=12, all over 0")).status(422);
        }
    }

    private static Plan plan(BigDecimal amount, double monthlyRate, int months) {
        double annuity = amount.doubleValue() * monthlyRate / (1 - Math.pow(1 + monthlyRate, -months));
        BigDecimal monthly = cents(BigDecimal.valueOf(annuity));
        List<Payment> payments = new ArrayList<>();
        BigDecimal left = amount;
        for (int month = 1; month <= months; month++) {
            BigDecimal interest = cents(left.multiply(BigDecimal.valueOf(monthlyRate)));
            BigDecimal repaid = month == months ? left : monthly.subtract(interest);
            left = left.subtract(repaid);
            payments.add(new Payment(month, interest, repaid, left));
        }
        return new Plan(monthly, payments);
    }

    private static BigDecimal cents(BigDecimal value) {
        return value.setScale(2, RoundingMode.HALF_EVEN);
    }
}
