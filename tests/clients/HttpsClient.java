import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** Asks the address that it is given by both of Java's own clients. */
public class HttpsClient {
    public static void main(String[] arguments) throws Exception {
        URI address = URI.create(arguments[0]);
        String bearer = "Bearer " + System.getenv("ACME_API_KEY");
        HttpRequest request = HttpRequest.newBuilder(address).header("Authorization", bearer).build();
        HttpClient client = HttpClient.newHttpClient();
        System.out.println("HttpClient " + client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
        HttpURLConnection connection = (HttpURLConnection) address.toURL().openConnection();
        connection.setRequestProperty("Authorization", bearer);
        System.out.println("HttpURLConnection " + connection.getResponseCode());
    }
}
