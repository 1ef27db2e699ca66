import { withMermaid } from 'vitepress-plugin-mermaid'

// Links that leave docs/ lead to files of the repository, which the site does not have:
// they are shown, and lead nowhere.
function outside (md) {
  const open = md.renderer.rules.link_open || ((tokens, i, options, env, self) => self.renderToken(tokens, i, options))
  md.core.ruler.push('outside', (state) => {
    const depth = (state.env.relativePath || '').split('/').length - 1
    for (const block of state.tokens) {
      const stack = []
      for (const t of block.children || []) {
        if (t.type === 'link_open') {
          const href = t.attrGet('href') || ''
          const up = (href.match(/^(\.\.\/)+/)?.[0].length || 0) / 3
          const leaves = up > depth || /\.(json|yml|yaml|conf|toml)$/.test(href)
          stack.push(leaves)
          if (leaves) { t.type = 'html_inline'; t.tag = ''; t.content = `<code title="${md.utils.escapeHtml(href)}">` }
        } else if (t.type === 'link_close' && stack.pop()) {
          t.type = 'html_inline'; t.tag = ''; t.content = '</code>'
        }
      }
    }
  })
  md.renderer.rules.link_open = open
}

export default withMermaid({
  title: 'handoff',
  description: 'Runs network programs with zero downtime',
  cleanUrls: true,
  lastUpdated: false,
  markdown: { config: outside },
  rewrites: { 'migrate/README.md': 'migrate/index.md', 'monitoring/README.md': 'monitoring/index.md' },
  themeConfig: {
    search: { provider: 'local' },
    outline: [2, 3],
    sidebar: [
      { text: 'Begin', items: [
        { text: 'Getting started', link: '/getting-started' },
        { text: 'How it works', link: '/how-it-works' },
        { text: 'The contracts', link: '/contracts' },
        { text: 'Prove it', link: '/prove' }] },
      { text: 'Guides', items: [
        { text: 'Node', link: '/guides/node' }, { text: 'Python', link: '/guides/python' },
        { text: 'Ruby', link: '/guides/ruby' }, { text: 'Go', link: '/guides/go' },
        { text: 'HTTP/3 and QUIC', link: '/guides/http3' },
        { text: 'Unmodified programs', link: '/programs' }] },
      { text: 'In production', items: [
        { text: 'systemd', link: '/systemd' }, { text: 'Containers', link: '/containers' },
        { text: 'nginx in front', link: '/nginx' }, { text: 'Monitoring', link: '/monitoring/' },
        { text: 'Health checks', link: '/health' }, { text: 'Security', link: '/security' }, { text: 'Troubleshooting', link: '/troubleshooting' }] },
      { text: 'Migrating', items: [
        { text: 'Overview', link: '/migrate/' }, { text: 'PM2', link: '/migrate/pm2' }, { text: 'recluster', link: '/migrate/recluster' },
        { text: 'cluster-master', link: '/migrate/cluster-master' }, { text: 'dutch-master', link: '/migrate/dutch-master' },
        { text: 'RackMan', link: '/migrate/rackman' }, { text: 'sticky-listen', link: '/migrate/sticky-listen' }] },
      { text: 'Figures', items: [
        { text: 'Beside its peers', link: '/benchmarks/peers' }, { text: 'How it scales', link: '/benchmarks/scale' }, { text: 'Compared', link: '/comparison' }] },
      { text: 'Reference', items: [
        { text: 'Commands', link: '/reference/cli' }, { text: 'Configuration', link: '/reference/configuration' },
        { text: 'Control API', link: '/reference/api' }, { text: 'Events', link: '/reference/events' }, { text: 'Metrics', link: '/reference/metrics' }] },
      { text: 'Internals', items: [
        { text: 'How workers are drained', link: '/internals/drain' }, { text: 'The keeper, measured', link: '/internals/keeper' },
        { text: 'Findings', link: '/internals/findings' }, { text: 'Known limits', link: '/internals/limits' }, { text: 'What a program can see', link: '/internals/bind' },
        { text: 'Fuzzing', link: '/internals/fuzzing' }, { text: 'Dependencies', link: '/internals/dependencies' }] }
    ]
  }
})
