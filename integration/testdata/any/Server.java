import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

public class Server {
    public static void main(String[] args) throws Exception {
        HttpServer s = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(System.getenv("PORT"))), 0);
        s.createContext("/", e -> {
            e.sendResponseHeaders(200, 3);
            e.getResponseBody().write("ok\n".getBytes());
            e.close();
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> s.stop(1)));
        s.start();
    }
}
